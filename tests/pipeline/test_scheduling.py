"""The plan as a graph, and the schedule that runs it, without any process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.pipeline import ActivePlan
from u2pl.pipeline.plans import SECTIONS
from u2pl.pipeline.scheduling import Entry, Outcome, PlanRecord, Schedule, Stage, State, Stopping, run, stages
from u2pl.project import Project

# ---- the graph -----------------------------------------------------------------------------------------


def active(runs: dict[str, list[str]], *, ablation: bool = False, figure: bool = False) -> ActivePlan:
    """A plan of tables that show runs, all of one split."""
    names = list(dict.fromkeys(name for shown in runs.values() for name in shown))
    first = next(iter(runs))
    swept = {"shows": first, "param": "alpha0", "values": "0.1 0.2", "args": ""}
    swept |= {"runs": runs[first], "record": f"results/{first}/a.json"}
    return ActivePlan.model_validate(
        {
            "plan": "toy",
            "reports": "reports",
            "pictures": "reports/figures",
            "prepare": {"d-s": {"dataset": "d", "split": "s", "folder": "data/d/splits/s", "args": ""}},
            "runs": {
                name: {
                    **{"dataset": "d", "split": "s", "method": "mt", "seed": 0, "recipe": "d"},
                    **{
                        "args": f"--run {name}",
                        "folder": "data/d/splits/s",
                        "settings": "data/d/splits/s/labeled.txt",
                        "sections": ["mt"] * SECTIONS,
                    },
                }
                for name in names
            },
            "ablations": {"sweep": swept} if ablation else {},
            "figures": {"fig": {"runs": names[:1], "args": ""}} if figure else {},
            "tables": {
                table: {
                    **{"table": table, "dataset": "d", "binding": {}},
                    "cells": {name: [["row", name]] for name in shown},
                }
                for table, shown in runs.items()
            },
        }
    )


def test_each_stage_waits_for_what_dvc_yaml_makes_it_depend_on():
    plan = active({"t1": ["a", "b"], "t2": ["b"]}, ablation=True, figure=True)
    found = {stage.name: (set(stage.needs), set(stage.after)) for stage in stages(plan)}
    assert found == {
        "prepare@d-s": (set(), set()),
        "train@a": ({"prepare@d-s"}, set()),
        "train@b": ({"prepare@d-s"}, set()),
        "evaluate@a": ({"train@a"}, set()),
        "evaluate@b": ({"train@b"}, set()),
        "ablate@sweep": ({"evaluate@a", "evaluate@b"}, set()),
        "figure@fig": ({"evaluate@a"}, set()),
        "table@t1": (set(), {"evaluate@a", "evaluate@b", "ablate@sweep"}),
        "table@t2": (set(), {"evaluate@b"}),
        "report": (set(), {"table@t1", "table@t2", "figure@fig"}),
    }


def order(plan: ActivePlan) -> list[str]:
    """The stages as one worker runs them."""
    schedule, names = Schedule(stages(plan), 1), []
    while begun := schedule.start():
        names.append(begun[0].name)
        schedule.ended(begun[0].name, True)
    return names


def test_table_by_table_the_last_rows_first_and_what_is_quickly_written_at_once():
    assert order(active({"t1": ["a", "b"], "t2": ["c", "a"]})) == [
        "prepare@d-s",
        *("train@b", "evaluate@b"),
        *("train@a", "evaluate@a", "table@t1"),
        *("train@c", "evaluate@c", "table@t2"),
        "report",
    ]


# ---- the schedule --------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> list[Stage]:
    """Stages of which each may wait for any before it."""
    found: list[Stage] = []
    for index in range(draw(st.integers(1, 12))):
        alone = draw(st.booleans()) and all(stage.alone for stage in found)
        before = [stage.name for stage in found]
        some = st.frozensets(st.sampled_from(before), max_size=3) if before else st.just(frozenset())
        needs = draw(some) if not alone else frozenset()
        after = draw(some) if not alone else frozenset()
        found.append(Stage(str(index), needs, after, alone, draw(st.integers(0, 3))))
    return draw(st.permutations(found))


class Jobs:
    """Stands in for DVC: says of each stage, when asked about it, what hypothesis says; checks the rules."""

    def __init__(self, stages: list[Stage], slots: int, draw: st.DrawFn):
        self.stages, self.slots, self.draw = {s.name: s for s in stages}, slots, draw
        self.running: dict[str, int] = {}
        self.outcomes: dict[str, bool] = {}
        self.started: list[str] = []

    def start(self, stage: Stage, slot: int) -> "Job":
        assert slot not in self.running.values() and 0 <= slot < self.slots
        assert stage.name not in self.started
        assert all(self.outcomes.get(name) for name in stage.needs)
        for name in stage.after:
            assert name in self.outcomes or not self.could_run(name)
        alone = [self.stages[name].alone for name in self.running]
        assert not any(alone) and not (stage.alone and self.running)
        assert stage.alone or all(s.name in self.outcomes for s in self.stages.values() if s.alone)
        self.running[stage.name] = slot
        self.started.append(stage.name)
        return Job(self, stage.name)

    def could_run(self, name: str) -> bool:
        """Whether nothing that the stage needs, however far back, has failed."""
        return all(self.outcomes.get(need, True) and self.could_run(need) for need in self.stages[name].needs)


class Job:
    waits_for = ""

    def __init__(self, jobs: Jobs, name: str):
        self.jobs, self.name, self.told = jobs, name, ""

    def poll(self) -> Outcome | None:
        if self.told:
            del self.jobs.running[self.name]
            return Outcome(False, stopped=True)
        if self.jobs.draw(st.booleans()):
            return None
        del self.jobs.running[self.name]
        succeeded = self.jobs.outcomes[self.name] = self.jobs.draw(st.booleans())
        return Outcome(succeeded, "" if succeeded else "it broke")

    def stop(self) -> None:
        self.told = "stop"

    def kill(self) -> None:
        self.told = "kill"


@settings(deadline=None, max_examples=200)
@given(graphs(), st.integers(1, 4), st.data())
def test_every_stage_runs_once_after_its_needs_and_failures_block_exactly_their_dependents(
    graph: list[Stage], slots: int, data: st.DataObject
):
    jobs = Jobs(graph, slots, data.draw)
    entries = run(Schedule(graph, slots), jobs.start, Stopping(), tick=lambda: None)
    for stage in graph:
        state = entries[stage.name].state
        if stage.name in jobs.outcomes:
            assert state is (State.DONE if jobs.outcomes[stage.name] else State.FAILED)
        else:
            assert state is State.BLOCKED and not jobs.could_run(stage.name)
            assert entries[stage.name].sentence.startswith("needs ")


@settings(deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(0, 20), st.data())
def test_after_a_stop_nothing_starts_and_what_ran_waits_again(
    graph: list[Stage], slots: int, ticks: int, data: st.DataObject
):
    jobs, stopping = Jobs(graph, slots, data.draw), Stopping()
    clock = iter(range(1000))
    begun_before: list[int] = []

    def tick() -> None:
        if next(clock) == ticks:
            stopping.asked = 1
            begun_before.append(len(jobs.started))

    entries = run(Schedule(graph, slots), jobs.start, stopping, tick=tick)
    assert not jobs.running
    if begun_before:
        assert len(jobs.started) == begun_before[0]
    unfinished = {name for name, entry in entries.items() if entry.state is State.WAITING}
    assert unfinished == {s.name for s in graph if s.name not in jobs.outcomes and jobs.could_run(s.name)}


def test_as_many_run_at_a_time_as_there_are_slots():
    schedule = Schedule([Stage(str(index)) for index in range(5)], 3)
    assert [schedule.start()[1] for _ in range(3)] == [0, 1, 2]
    assert schedule.start() is None
    schedule.ended("1", True)
    assert schedule.start()[1] == 1


def test_the_second_word_to_stop_kills():
    jobs: list[Job] = []
    stopping = Stopping()
    told: Iterator[int] = iter([1, 2, 2, 2])

    class Deaf(Job):
        def poll(self) -> Outcome | None:
            return Outcome(False, stopped=True) if self.told == "kill" else None

    def start(stage: Stage, slot: int) -> Job:
        jobs.append(Deaf(None, stage.name))
        return jobs[-1]

    def tick() -> None:
        stopping.asked = next(told)

    run(Schedule([Stage("a"), Stage("b")], 1), start, stopping, tick=tick)
    assert [job.told for job in jobs] == ["kill"]


def test_a_record_is_read_as_it_was_written_and_none_where_it_makes_no_sense(tmp_path: Path):
    project = Project(tmp_path)
    assert PlanRecord.read(project) is None
    record = PlanRecord("toy", "here", 1, 2.0, {"report": Entry(State.FAILED, "it broke", 0, 1.0, 2.0)})
    record.write(project)
    assert PlanRecord.read(project) == record
    assert PlanRecord.read(project).stages["report"].state is State.FAILED
    (tmp_path / "runs/.plan/state.json").write_text('{"stages": 3}')
    assert PlanRecord.read(project) is None


@pytest.mark.parametrize("table", ["t1", "t2"])
def test_a_table_is_written_though_all_of_its_runs_failed(table: str):
    plan = active({"t1": ["a"], "t2": ["b"]})
    schedule = Schedule(stages(plan), 2)
    run_names = []
    while begun := schedule.start():
        run_names.append(begun[0].name)
        schedule.ended(begun[0].name, not begun[0].name.startswith("train@"))
    assert f"table@{table}" in run_names and run_names[-1] == "report"
