"""What a person sets about healing: proofs, waits, budgets. Times in microseconds."""

from __future__ import annotations

from dataclasses import dataclass

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingParams:
    """Defaults are those that the MTTR figures are measured with."""

    proof_us: int = 2 * SECOND_US
    """Least serving time by the remedy's versions before it counts as a cure."""
    proof_events: int = 200
    """Least events served by them."""
    proof_labels: int = 100
    """Least labels on them, where accuracy is the proof."""
    slow_share: float = 0.05
    """Fewer slow events than this share is a healthy latency."""
    error_margin: float = 0.03
    """How far above the level before the fault the error share may stay."""
    drift_rows: int = 256
    """Least events of a drift window that says "cured"."""
    gate_labels: int = 200
    """Least labels on the shadow arm before a promotion."""
    gate_margin: float = 0.01
    """How much worse than the live arm the shadow may be."""
    threshold_step: float = 0.1
    """How far the interim decision threshold is lowered during drift."""
    retrain_rows: int = 1500
    """Labels since the onset that a retraining wants."""
    retrain_wait_us: int = 15 * SECOND_US
    """How long the trainer may wait for them."""
    release_after_us: int = 5 * SECOND_US
    """How long the probes must be healthy before the way out of SAFE_MODE."""
    release_calls: int = 8
    """Least probe calls since the hold."""
    release_wait_us_max: int = 600 * SECOND_US
    """The longest wait that failed ways back grow to."""
    proposal_repeat_us: int = 5 * SECOND_US
    """Silence of the policy after which a proposal is sent once more."""
    proposal_timeout_us: int = 15 * SECOND_US
    """Silence of the policy after which a person is asked."""
    ask_timeout_us: int = 3600 * SECOND_US
    """How long a person may take; then the answer counts as no."""
    undo_timeout_us: int = 10 * SECOND_US
    """An undo that is not visible by then is escalated."""
    config_timeout_us: int = 10 * SECOND_US
    """A change that is not folded by then has failed."""
    config_tries: int = 5
    """How often a change is published when somebody else's change wins."""
    restart_attempts: int = 4
    """How often a rung restarts a process that dies again before that is proven: a lethal event kills up to four."""
    hidden_us_max: int = 60 * SECOND_US
    """How long the time-out of a proof may stand still while another incident hides what the proof looks at."""
    actions_per_hour: int = 30
    """Budget over all incidents; beyond it a person is asked. Undos are free."""
    symptom_us: int = 3 * SECOND_US
    """A consequence may fire this long after its cause has ended."""
    orphan_us: int = 5 * SECOND_US
    """A symptom that still fires this long after its cause has ended becomes an incident of its own."""
    calm_us: int = 10 * SECOND_US
    """How long an incident whose alerts are resolved waits for proof of recovery before its next rung."""
    deploy_us: int = 60 * SECOND_US
    """A fault this soon after a change of the model is put down to the change."""
    memories: int = 200
    """Ended incidents that are remembered."""
