"""What actors ask for, and what becomes of shards when they die."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from helpers import draw_archive, fingerprint

import flowers_batch as fb
from flowers_batch.cluster.actors import _log
from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardResult
from flowers_batch.cluster.pool import PoolResult, _Pool, run_shards
from flowers_batch.cluster.scaling import Resources
from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.worker import Quarantined
from flowers_batch.errors import InputError, RunError
from flowers_batch.progress import NULL_REPORTER, Progress
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.folder import open_folder

DIES, STALLS = object(), object()  # what a scripted actor may do besides giving an answer


@dataclass(eq=False)
class Answer:
    """What a scripted actor gives.

    Attributes:
        value: The answer; None where it is the usual one.
        looks: How often it is looked for before it is there, a millisecond or more each time.
        moves: Whether the actor gets on meanwhile.
    """

    value: Any = None
    looks: int = 0
    moves: bool = False

    def is_there(self) -> bool:
        self.looks -= 1
        return self.value is not STALLS and self.looks < 0


class SlowStream(io.StringIO):
    """A stream between whose writes other threads have their turn."""

    def write(self, text: str) -> int:
        time.sleep(0.002)
        return super().write(text)


class ScriptedPool(_Pool):
    """A pool whose actors need no Ray: they answer at once, in the way that `behave` says."""

    def __init__(self, behave: Callable[..., Any], actors: int, shards: int):
        listed = [Shard(number, 1, "") for number in range(shards)]
        self.said: list[str] = []
        config = SimpleNamespace(actors=actors, stall_timeout=0.1)
        super().__init__(Scripted(behave), "", "", listed, config, False, lambda fingerprint: None, self)
        self._staff()

    def _staff(self) -> None:
        while len(self._members) < self._cluster.actors:
            self.add_actor(Resources(0, 1))

    def update(self, progress: Progress) -> None:
        pass

    def message(self, sentence: str) -> None:
        self.said.append(sentence)


@dataclass(frozen=True)
class Scripted:
    """A factory that is asked for no workers: what its actors do is told by name."""

    behave: Callable[..., Any]

    def with_precision(self, precision: str) -> Scripted:
        return self


class ScriptedActor:
    """Stands in for Ray's handle of an actor, and for the methods of it."""

    def __init__(self, factory: Scripted, *others: Any):
        self.behave, self.step, self.answer = factory.behave, 0, Answer()
        self.start, self.heartbeat = SimpleNamespace(remote=self.started), SimpleNamespace(remote=self.positioned)
        self.run, self.inspect = (SimpleNamespace(remote=partial(self.work, name)) for name in ("run", "inspect"))

    def started(self) -> Answer:
        return Answer(ActorInfo(fingerprint(), "host", ()))

    def positioned(self) -> Answer:
        self.step += self.answer.moves
        return Answer(Heartbeat("here", self.step))

    def work(self, method: str, shard: Shard, *arguments: Any) -> Answer:
        found = self.behave(method, shard.number, *arguments)
        self.answer = found if isinstance(found, Answer) else Answer(found)
        if self.answer.value is None:
            self.answer.value = ShardResult(Footer("", shard.number, "", 1, 0), {})
        return self.answer


@pytest.fixture
def scripted(monkeypatch):
    """Runs shards by actors that do what a function of the method's name, the shard's number and the rest says."""

    def get(answer: Answer) -> Any:
        if answer.value is DIES:
            raise ray.exceptions.ActorDiedError()
        if isinstance(answer.value, Exception):
            raise ray.exceptions.RayTaskError("run", "", answer.value)
        return answer.value

    def wait(answers: list[Answer], **options: Any) -> tuple[list[Answer], list[Answer]]:
        time.sleep(0.001)
        return [answer for answer in answers if answer.is_there()], []

    def remote(**options: Any) -> Callable[..., Any]:
        actor = SimpleNamespace(remote=ScriptedActor)
        return lambda wrapped: SimpleNamespace(options=lambda **options: actor)

    monkeypatch.setattr("flowers_batch.cluster.pool._POLL_SECONDS", 0.001)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "here", "Alive": True}])

    def run(behave: Callable[..., Any], actors: int = 1, shards: int = 3) -> tuple[PoolResult, list[str]]:
        pool = ScriptedPool(behave, actors, shards)
        return pool.run(), pool.said

    return run


def test_every_actor_gets_a_shard_before_any_gets_a_second(scripted):
    def held(actors: int, shards: int) -> list[int]:
        pool = ScriptedPool(lambda *called: STALLS, actors, shards)
        pool._take_answers()
        pool._hand_out()
        return sorted(Counter(task.member for task in pool._tasks.values()).values())

    assert held(actors=3, shards=4) == [1, 1, 2]
    assert held(actors=2, shards=9) == [2, 2]


def test_a_shard_that_hangs_while_later_ones_pass_it_is_a_stall(scripted):
    times = Counter()

    def behave(method: str, shard: int, *arguments: Any) -> Any:
        times[method, shard] += 1
        if method == "inspect":
            return {}
        # Others move on for long after their actor could have been noticed by its silence alone.
        return STALLS if (shard, times[method, shard]) == (0, 1) else Answer(looks=20, moves=True)

    outcome, said = scripted(behave, shards=40)
    assert outcome.stalls == 1 and len(outcome.footers) == 40
    assert any("shard 0: its images are inspected" in sentence for sentence in said)


class Script:
    """What actors do with one shard, time after time; all others they do at once.

    Attributes:
        called: Methods that were called for that shard, and what they were given besides it.
    """

    def __init__(self, shard: int, *deeds: Any):
        self.shard, self.deeds = shard, list(deeds)
        self.called: list[tuple[Any, ...]] = []

    def __call__(self, method: str, shard: int, *arguments: Any) -> Any:
        if shard != self.shard:
            return None
        self.called.append((method, arguments[0]))
        return self.deeds.pop(0) if self.deeds else None


def test_a_shard_on_which_two_actors_died_is_tried_again_without_the_images_that_are_to_blame(scripted):
    find_poison_images = {"a.png": ("crashed_decoder", "It ended its process.")}
    script = Script(1, DIES, DIES, find_poison_images)
    outcome, said = scripted(script)
    seconds = pytest.approx(0.1 / 4)
    assert script.called == [("run", {}), ("run", {}), ("inspect", seconds), ("run", find_poison_images)]
    assert (len(outcome.footers), outcome.deaths, outcome.stalls) == (3, 2, 0)
    assert any("on shard 1: its images are inspected" in sentence for sentence in said)
    assert "a.png becomes a failed row (crashed_decoder): It ended its process." in said


def test_a_shard_is_inspected_after_its_first_stall(scripted):
    script = Script(1, STALLS, {})
    outcome, said = scripted(script)
    assert [method for method, _ in script.called] == ["run", "inspect", "run"]
    assert (len(outcome.footers), outcome.deaths, outcome.stalls) == (3, 0, 1)
    assert "An actor is killed: it made no progress for 0.1 seconds. Its shards go to others." in said


def test_five_actors_that_die_on_a_shard_end_the_run_if_no_image_is_to_blame(scripted):
    script = Script(1, DIES, DIES, {}, DIES, STALLS, DIES)
    with pytest.raises(fb.RunError, match="5 actors died on shard 1, and none of its images is to blame; the last"):
        scripted(script)
    assert [method for method, _ in script.called].count("inspect") == 1


def test_actors_that_die_while_they_inspect_are_counted_too(scripted):
    with pytest.raises(fb.RunError, match="5 actors died on shard 1; the last"):
        scripted(Script(1, DIES, DIES, DIES, STALLS, DIES))


def test_deaths_are_counted_anew_once_images_are_condemned(scripted):
    find_poison_images = {"a.png": ("timeout", "It took too long.")}
    outcome, _ = scripted(Script(1, DIES, DIES, DIES, DIES, find_poison_images, DIES, DIES, DIES, DIES))
    assert outcome.deaths == 8 and len(outcome.footers) == 3


def test_deaths_with_their_node_are_not_counted_against_a_shard(scripted, monkeypatch):
    """Also of actors that were never asked before where they are."""
    monkeypatch.setattr("flowers_batch.cluster.pool._POLL_SECONDS", 60.0)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "here", "Alive": False}])
    script = Script(1, *[DIES] * 9)
    outcome, _ = scripted(script)
    assert outcome.deaths == 9 and {method for method, _ in script.called} == {"run"}


def test_a_death_is_never_counted_on_a_shard_that_was_finished(scripted):
    """The actor's answer to the first shard and its death on the second are seen at the same time."""
    script = Script(1, DIES, DIES, {"a.png": ("crashed_decoder", "")})
    outcome, _ = scripted(script, shards=2)
    assert [method for method, _ in script.called] == ["run", "run", "inspect", "run"]
    assert sorted(outcome.footers) == [0, 1]


def test_the_time_for_which_an_actor_had_no_work_is_no_stall(scripted):
    """There is one shard, and when one of two actors dies of it after a while, the other takes it over."""
    outcome, _ = scripted(Script(0, Answer(DIES, looks=300, moves=True), Answer(looks=20)), actors=2, shards=1)
    assert (outcome.deaths, outcome.stalls, len(outcome.footers)) == (1, 0, 1)


class Twice:
    """What actors do with a shard when it is handed out first, and when it is handed out again; others take no time."""

    def __init__(self, **deeds: list[Answer]):
        self.deeds = {int(name.removeprefix("shard")): each for name, each in deeds.items()}
        self.times: Counter[int] = Counter()

    def __call__(self, method: str, shard: int, *arguments: Any) -> Any:
        self.times[shard] += 1
        return self.deeds[shard].pop(0) if shard in self.deeds else Answer(looks=1, moves=True)


def test_the_end_waits_for_no_slow_actor(scripted):
    twice = Twice(shard11=[Answer(looks=10**6, moves=True), Answer(looks=1)])
    outcome, _ = scripted(twice, actors=2, shards=12)
    assert sorted(outcome.footers) == list(range(12)) and outcome.stalls == 0
    assert twice.times[11] == 2 and sum(twice.times.values()) == 13


@pytest.mark.parametrize("end", [DIES, OSError("its old file is gone")], ids=["dies", "fails"])
def test_what_becomes_of_the_slower_one_is_all_the_same(scripted, end):
    long = [Answer(looks=500, moves=True), Answer(looks=10**6, moves=True)]  # so that the run goes on meanwhile
    twice = Twice(shard11=[Answer(end, looks=200, moves=True), Answer(looks=5)], shard10=long)
    outcome, _ = scripted(twice, actors=3, shards=12)
    assert sorted(outcome.footers) == list(range(12))
    assert twice.times[11] == 2 and outcome.deaths == (end is DIES)


def test_actors_that_began_together_do_no_work_twice(scripted):
    twice = Twice(shard0=[Answer(looks=60, moves=True)], shard1=[Answer(looks=30, moves=True)])
    scripted(twice, actors=2, shards=2)
    assert twice.times == {0: 1, 1: 1}


def test_a_driver_that_was_stopped_itself_takes_no_actor_for_stalled(scripted, monkeypatch):
    hours = itertools.count(0.0, 3600.0)
    monkeypatch.setattr("flowers_batch.cluster.pool.time", SimpleNamespace(monotonic=lambda: next(hours)))
    outcome, _ = scripted(Script(1, Answer(looks=8)))
    assert outcome.stalls == 0 and len(outcome.footers) == 3


NODES = """
import sys, threading, time
import ray
from ray.cluster_utils import Cluster
import flowers_batch as fb
from flowers_batch.dataset.shard_file import shard_name
from pathlib import Path

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

def lose_a_node():
    while not list((Path(sys.argv[2]) / "codes").glob("shard-*")):
        time.sleep(0.01)
    cluster.remove_node(nodes[1])

threading.Thread(target=lose_a_node, daemon=True).start()
summary = fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null", shard_size=1, batch_size=1))
print(summary.ok, summary.shards)
"""


@pytest.mark.faults
def test_shards_of_a_node_that_is_lost_go_to_the_actors_that_are_left(archive, tmp_path):
    """The lost node's actor can never be replaced: nothing has its resources."""
    command = [sys.executable, "-c", NODES, str(archive), str(tmp_path / "codes")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    assert ended.stdout.split()[-2:] == ["30", "30"]
    assert fb.verify(str(tmp_path / "codes")).is_complete


MEMORY = """
import sys
import ray
import flowers_batch as fb
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null"))
except fb.RunError as error:
    print("RunError:", error)
"""


@pytest.mark.nightly
def test_actors_that_use_up_their_nodes_memory_end_the_run_in_a_sentence(archive, tmp_path):
    command = [sys.executable, "-c", MEMORY, str(archive), str(tmp_path / "codes")]
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, env=os.environ | limits)
    assert ended.returncode == 0 and "RunError: 5 actors died" in ended.stdout


@dataclass(frozen=True)
class Deadly:
    """Makes encoders whose actor kills itself at a certain image, as often as there are files to take away."""

    inner: EncoderFactory
    image: str
    lives: str
    wants_gpu = True

    def with_precision(self, precision: str) -> Deadly:
        return replace(self, inner=self.inner.with_precision(precision))

    def find_poison_images(
        self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]
    ) -> Quarantined:
        return self.inner.find_poison_images(images, seconds, progress)

    def __call__(self, threads: int, gpu: bool):
        worker = self.inner(threads, gpu)
        read = worker._feed.reader.read
        image, lives = self.image, Path(self.lives)

        class Source:
            def read(self, listed: Image) -> bytes:
                if listed.path == image and (left := sorted(lives.iterdir())):
                    left[0].unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(listed)

        worker._feed.reader = Source()
        return worker


def test_lines_that_shards_log_at_once_stay_whole(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := SlowStream())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _log("done", Shard(number, 1, "")), range(20)))
    assert sorted(json.loads(line)["shard"] for line in stream.getvalue().splitlines()) == list(range(20))


@pytest.fixture
def deadly(tmp_path, local_ray):
    """Runs over 24 images, 4 a shard, in which actors die `deaths` times at the tenth."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    source = open_source(draw_archive(tmp_path / "photos", 8))
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 4, "run")
    (tmp_path / "lives").mkdir()

    def run(deaths: int):
        for number in range(deaths):
            (tmp_path / "lives" / str(number)).touch()
        factory = Deadly(
            EncoderFactory(fb.EncodeConfig(network="null"), source), "green/0001.png", str(tmp_path / "lives")
        )
        return run_shards(
            factory, folder.url, CODES, manifest.shards, ClusterConfig(), lambda fingerprint: None, NULL_REPORTER
        )

    return run


def test_shards_of_an_actor_that_dies_go_to_another(deadly):
    outcome = deadly(deaths=2)
    assert outcome.deaths == 2
    assert sorted(outcome.footers) == list(range(6))
    assert sum(footer.ok for footer in outcome.footers.values()) == 24


def test_a_shard_that_outlives_its_actors_again_and_again_ends_the_run(deadly):
    with pytest.raises(fb.RunError, match="5 actors died on shard 2, and none of its images is to blame"):
        deadly(deaths=100)


def test_weights_that_do_not_fit_are_told_in_one_sentence_and_start_nothing(archive, tmp_path):
    file = tmp_path / "weights.h5"
    file.write_text("no weights")
    with pytest.raises(fb.InputError, match=r"weights\.h5 is not a readable file of Keras weights"):
        fb.encode(str(archive), str(tmp_path / "codes"), fb.EncodeConfig(weights=str(file)))
    assert not (tmp_path / "codes").exists()


def test_a_fault_of_the_program_is_not_tried_again(archive, tmp_path, local_ray):
    source = open_source(archive)
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 16, "run")
    broken = EncoderFactory(fb.EncodeConfig(network="null", batch_size=4), replace_read(source))
    with pytest.raises(fb.RunError, match="ZeroDivisionError"):
        run_shards(broken, folder.url, CODES, manifest.shards, ClusterConfig(), lambda fingerprint: None, NULL_REPORTER)


def replace_read(source):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    class Broken:
        folder = source.folder

        def read(self, image: Image) -> bytes:
            return bytes(1 // 0)

    return Broken()


def test_an_address_where_no_cluster_is_is_refused_in_one_sentence(archive, tmp_path):
    script = (
        "import sys, flowers_batch as fb\n"
        "config = fb.EncodeConfig(network='null', cluster=fb.ClusterConfig(address='nonsense://x'))\n"
        "try: fb.encode(sys.argv[1], sys.argv[2], config)\n"
        "except fb.InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(archive), str(tmp_path / "codes")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert "The Ray cluster at nonsense://x cannot be joined" in printed


def alone(how: str, state: str = "", stall_timeout: float = 600.0) -> tuple[Any, list[str]]:
    """The result of work that one actor does alone, and the messages it reported."""

    def work(threads, gpus, reporter):
        if how == "dies":
            reporter.update(Progress("started"))
        else:
            reporter.message("started")  # which counts as progress
        reporter.update(Progress("half"))
        if how == "bad input":
            raise InputError("There are no photos.")
        if how == "fault":
            raise ValueError("of the program")
        if how in ("dies once", "stands still once") and not os.path.exists(state):
            Path(state).touch()
            if how == "dies once":
                time.sleep(1.5)  # until it was heard
                os._exit(1)
            time.sleep(3600)
        if how == "dies":
            os._exit(1)
        reporter.message("ended")
        return threads, gpus

    said: list[str] = []
    reporter = SimpleNamespace(message=said.append, update=lambda progress: None)
    return run_on_one_actor(work, ClusterConfig(stall_timeout=stall_timeout), reporter), said


def test_one_actor_alone_has_all_cores_and_is_heard_to_the_end(local_ray):
    given, said = alone("")
    assert given == (2, 0)
    assert said == ["started", "ended"]


def test_what_an_actor_alone_raises_is_told_as_it_is(local_ray):
    with pytest.raises(InputError, match="There are no photos"):
        alone("bad input")
    with pytest.raises(RunError, match=r"failed by a fault of the program: ValueError\('of the program'\)"):
        alone("fault")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("dies once", "The actor died"),
        pytest.param("stands still once", "it made no progress for 2 seconds", marks=pytest.mark.faults),
    ],
)
def test_actor_alone_that_is_lost_is_replaced(local_ray, tmp_path, how, why):
    given, said = alone(how, str(tmp_path / "state"), stall_timeout=2)
    assert given == (2, 0)
    assert said[0] == said[2] == "started" and said[-1] == "ended"
    assert why in said[1] and said[1].endswith("Another goes on.")


def test_actors_alone_that_die_again_and_again_end_it(local_ray, monkeypatch):
    monkeypatch.setattr("flowers_batch.cluster.single_actor._MAX_DEATHS", 2)
    with pytest.raises(RunError, match=r"2 actors died before they got any further, .* goes on"):
        alone("dies")
