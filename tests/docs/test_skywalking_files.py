"""The OAP reads only what the agent sends, and shows only what it makes of that."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from afterwards.skywalking.meters import GAUGES, RUN, RUNNING, SETTLED, WAIT
from tests.serving import ROOT

FOLDER = ROOT / "deploy" / "skywalking"
RULES = yaml.safe_load((FOLDER / "meter-analyzer-config" / "afterwards.yaml").read_text())
ALARMS = yaml.safe_load((FOLDER / "alarm-settings.yml").read_text())
[DASHBOARD] = json.loads(
    (FOLDER / "ui-initialized-templates" / "custom" / "afterwards-service.json").read_text()
)
OAP = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["oap"]
MADE = {f"{RULES['metricPrefix']}_{rule['name']}": rule["exp"] for rule in RULES["metricsRules"]}
HISTOGRAMS = {WAIT, RUN}
SENT = {*GAUGES.values(), RUNNING, SETTLED} | HISTOGRAMS
# What each rule of the OAP's own that remains reads: made of spans.
OF_SPANS = {"service_resp_time", "service_sla", "service_percentile", "database_access_resp_time"}


def expressions(node: Any) -> Iterator[str]:
    """Find the expressions in a dashboard, however deep."""
    if isinstance(node, dict):
        yield from node.get("expressions", [])
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from expressions(each)


def metrics(expression: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:_[a-z]+)+", expression)) - {"aggregate_labels"}


def labels(expression: str) -> set[str]:
    """Give the labels that an expression names: those that the OAP adds itself, or a bucket's."""
    return {
        label
        for each in re.findall(r"\[([^]\d]+)]", expression)
        for label in re.findall(r"'(\w+)'", each)
    }


@pytest.mark.parametrize(("name", "expression"), MADE.items())
def test_each_rule_reads_what_is_sent(name: str, expression: str) -> None:
    [read] = re.findall(r"^(\w+)\.", expression)
    assert read in SENT
    assert labels(expression) <= {"service", "instance"} | ({"le"} if read in HISTOGRAMS else set())
    assert ("histogram()" in expression) == (read in HISTOGRAMS)


def test_all_that_is_sent_is_read() -> None:
    assert {expression.partition(".")[0] for expression in MADE.values()} == SENT


def test_the_dashboard_shows_what_is_made() -> None:
    shown = set[str]().union(*map(metrics, expressions(DASHBOARD)))
    assert shown == {*MADE}
    assert DASHBOARD["configuration"]["entity"] == "Service"
    assert RULES["expSuffix"].startswith("service(")
    assert RULES["expSuffix"].endswith(f"Layer.{DASHBOARD['configuration']['layer']})")


def test_the_dashboards_percentiles_are_made() -> None:
    for expression in expressions(DASHBOARD):
        for asked in re.findall(r"(\w+)\{p='([\d,]+)'\}", expression):
            name, percentiles = asked
            assert f"histogram_percentile([{percentiles}])" in MADE[name]


def test_alarms_ask_for_what_is_made() -> None:
    asked = {name: metrics(rule["expression"]) for name, rule in ALARMS["rules"].items()}
    assert asked.pop("dead_tasks_rule") == {"meter_afterwards_dead"}
    assert asked.pop("oldest_waiting_rule") == {"meter_afterwards_oldest_waiting"}
    assert set[str]().union(*asked.values()) == OF_SPANS
    for name, rule in ALARMS["rules"].items():
        assert name.endswith("_rule")
        assert re.fullmatch(r"\w+\(.+\) (>|>=) \d+", rule["expression"])
        assert {"period", "message"} <= rule.keys()


def test_no_alarm_is_for_healthy_tasks() -> None:
    """They are related to requests, and are their workers' entry spans, over a second or not."""
    rules = ALARMS["rules"]
    assert not {"endpoint_relation_resp_time_rule", "service_instance_resp_time_rule"} & {*rules}
    for name in ("service_resp_time_rule", "service_resp_time_percentile_rule"):
        assert re.fullmatch(rules[name]["exclude-names-regex"], "ours-worker")
        assert not re.fullmatch(rules[name]["exclude-names-regex"], "ours")


def test_the_oap_is_given_the_files() -> None:
    assert OAP["volumes"] == ["./deploy/skywalking:/skywalking/ext-config:ro"]
    environ = OAP["environment"]
    assert environ["SW_METER_ANALYZER_ACTIVE_FILES"].split(",")[-1] == "afterwards"
    for key in ("SW_SEARCHABLE_TAG_KEYS", "SW_SEARCHABLE_LOGS_TAG_KEYS"):
        assert {"task.id", "task.name", "task.outcome"} <= {*environ[key].split(",")}
