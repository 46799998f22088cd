"""A dashboard's table in; its JSON (schema v1, which every Grafana since 10 loads) and its provisioning out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tools.infra.panels import IN, Dashboard, Panel, Query

_SCHEMA = 39
_HEIGHT = {"stat": 4, "timeseries": 8, "bargauge": 8, "table": 6}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""Chosen on the page: a dashboard with a fixed one works in no other Grafana."""
_ANNOTATIONS = (
    ("Incidents", "red", f"sum by (pipeline) (mendstream_incidents_open{{{IN}}}) > 0", "incident open"),
    ("Config changes", "blue", f"changes(mendstream_config_version{{{IN}}}[$__interval]) > 0", "config changed"),
)

DATASOURCE = """\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    jsonData:
      timeInterval: 5s # the scrape interval: no rate is asked for less than four of them
"""

PROVIDER = """\
apiVersion: 1
providers:
  - name: mendstream
    folder: mendstream
    type: file
    disableDeletion: true
    allowUiUpdates: false # they are generated: change tools/infra/panels.py
    options:
      path: /var/lib/grafana/dashboards
"""


def dashboard(board: Dashboard) -> str:
    made = {
        "uid": board.uid,
        "title": board.title,
        "description": board.doc,
        "tags": ["mendstream"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_annotation(*row) for row in _ANNOTATIONS]},
        "links": [{"type": "dashboards", "tags": ["mendstream"], "title": "mendstream", "asDropdown": False,
                   "includeVars": True, "keepTime": True, "icon": "dashboard", "targetBlank": False, "tooltip": "",
                   "url": ""}],
        "templating": {"list": [_datasource_variable(), _pipeline_variable()]},
        "panels": list(_panels(board.panels)),
    }  # fmt: skip
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _panels(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """Set from left to right; a panel that does not fit begins a new row."""
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        height = _HEIGHT[panel.kind]
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height})
        x, row = x + panel.width, max(row, height)


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    made = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.doc,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target("ABC"[n], panel, query) for n, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }
    if panel.kind == "table":
        hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _target(ref: str, panel: Panel, query: Query) -> dict[str, Any]:
    once = panel.kind in ("bargauge", "table")
    return {
        "refId": ref, "datasource": _SOURCE, "editorMode": "code", "expr": query.expr, "legendFormat": query.legend,
        "instant": once, "range": not once, "format": "table" if panel.kind == "table" else "time_series",
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "unit": panel.unit, "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": _thresholds(panel), "custom": {},
    }  # fmt: skip
    if panel.kind == "timeseries":
        style = "line" if panel.limit is not None else "off"
        found["custom"] = {"fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": style}}
        found["min"] = 0
    if panel.maximum is not None:
        found["max"] = panel.maximum
    if panel.names:
        options = {value: {"text": text, "index": n} for n, (value, text) in enumerate(panel.names.items())}
        found["mappings"] = [{"type": "value", "options": options}]
    return found


def _thresholds(panel: Panel) -> dict[str, Any]:
    below, beyond = ("red", "green") if panel.floor else ("green", "red")
    steps: list[dict[str, Any]] = [{"color": "green" if panel.limit is None else below, "value": None}]
    if panel.limit is not None:
        steps.append({"color": beyond, "value": panel.limit})
    return {"mode": "absolute", "steps": steps}


_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _REDUCE, "colorMode": "value", "graphMode": "area", "justifyMode": "auto",
        "orientation": "auto", "textMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCE, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True,
        "minVizHeight": 10, "minVizWidth": 0, "valueMode": "color",
    },
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"]}},
}  # fmt: skip


def _annotation(name: str, colour: str, expr: str, text: str) -> dict[str, Any]:
    return {
        "name": name, "datasource": _SOURCE, "enable": True, "hide": False, "iconColor": colour, "expr": expr,
        "titleFormat": text, "textFormat": "{{pipeline}}", "step": "5s", "useValueForTime": False,
    }  # fmt: skip


def _datasource_variable() -> dict[str, Any]:
    return {
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0,
        "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "", "skipUrlSync": False,
    }  # fmt: skip


def _pipeline_variable() -> dict[str, Any]:
    query = "label_values(mendstream_build_info, pipeline)"
    return {
        "name": "pipeline", "type": "query", "label": "Pipeline", "datasource": _SOURCE, "hide": 0,
        "query": {"query": query, "refId": "pipelines"}, "definition": query, "includeAll": True, "multi": True,
        "allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [],
        "refresh": 2, "regex": "", "skipUrlSync": False, "sort": 1,
    }  # fmt: skip
