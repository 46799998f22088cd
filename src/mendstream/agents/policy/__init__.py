"""The policy agent (AGL, the Agentic Governance Layer): proposals, facts, Cedar policies, verdicts.

In here may be what decides whether an action is allowed. cedarpy is welcome: it computes and touches nothing.
"""

from mendstream.agents.policy.agent import PolicyAgent
from mendstream.agents.policy.cases import CaseResult, run_cases, uncovered
from mendstream.agents.policy.engine import Policies, Ruling, rule
from mendstream.agents.policy.loading import Problem, check_policies, load_policies, shipped_policies
from mendstream.agents.policy.settings import PolicySettings
from mendstream.agents.policy.state import PolicyState

__all__ = [
    "CaseResult",
    "Policies",
    "PolicyAgent",
    "PolicySettings",
    "PolicyState",
    "Problem",
    "Ruling",
    "check_policies",
    "load_policies",
    "rule",
    "run_cases",
    "shipped_policies",
    "uncovered",
]
