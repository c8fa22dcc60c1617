"""The captured step: the codes of the plain loop, captured once a shape, never replayed on memory that has moved.

`FakeGraph` stands for a CUDA graph: like one, it is bound to the addresses that it was captured on.
"""

import contextlib
import inspect
import types

import pytest
import torch
from comfyui_musicgen.musicgen.lm import RowNoise, Sampling, cuda_graphs, generate_codes
from comfyui_musicgen.musicgen.lm.static import CHUNK, MAX_RUNS, Shape, StaticRuns, buckets
from comfyui_musicgen.tests.lm import tiny_lm
from comfyui_musicgen.tests.lm.tiny_lm import CARD

MODES = {
    "top-k": Sampling(20),
    "all": Sampling(0),
    "top-p": Sampling(0, 0.8),
    "hot": Sampling(20, 0.0, 1.7),
    "greedy": Sampling(temperature=0.0),
}


class Captures:
    """Makes fake graphs, and counts captures and replays."""

    def __init__(self, lm):
        self.lm, self.n_captured, self.n_replayed = lm, 0, 0

    def __call__(self, device):
        assert device == self.lm.device
        return self.capture

    def addresses(self):
        return [tensor.data_ptr() for tensor in self.lm.state_dict(keep_vars=True).values()]

    def capture(self, step):
        self.n_captured += 1
        step()  # as a warm-up does
        step()
        bound = self.addresses()

        def replay():
            assert self.addresses() == bound, "replayed on stale memory"
            self.n_replayed += 1
            step()

        return replay


@pytest.fixture
def make():
    """make(cross=..., n_codebooks=...) -> LM with fake graphs, and its twin without."""

    def models(cross=True, n_codebooks=4):
        lm, plain = (tiny_lm.make(cross, n_codebooks=n_codebooks) for _ in range(2))
        lm.captured = StaticRuns(Captures(lm))
        lm.captures = lm.captured._make_capture
        return lm, plain

    return models


def codes(lm, lengths=(5,), n_frames=40, sampling=MODES["top-k"], guided=True, seed=3, **options):
    null = tiny_lm.nulls(lengths) if guided else None
    noise = RowNoise(seed, len(lengths), lm.config.n_codebooks, CARD)
    return generate_codes(
        lm, tiny_lm.streams(lm, lengths), null, n_frames, sampling, noise, 3.0 if guided else 1.0, **options
    )


@pytest.mark.parametrize("cross", [True, False], ids=["text", "prefix"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("guided", [True, False])
def test_codes_are_those_of_the_plain_loop(make, cross, mode, guided):
    lm, plain = make(cross)
    given = {"lengths": (7, 2, 4), "sampling": MODES[mode], "guided": guided}  # different lengths: padding
    assert torch.equal(codes(lm, **given), codes(plain, **given))
    assert lm.captures.n_replayed == 40 + 3 - 1


@pytest.mark.parametrize("n_codebooks", [4, 8])
@pytest.mark.parametrize("n_prompt", [1, 30, 39])
def test_prompts_are_continued(make, n_codebooks, n_prompt):
    lm, plain = make(n_codebooks=n_codebooks)
    prompt = torch.randint(CARD, (1, n_codebooks, n_prompt))
    made = codes(lm, prompt=prompt)
    assert torch.equal(made, codes(plain, prompt=prompt)) and torch.equal(made[..., :n_prompt], prompt)


def test_a_long_piece_passes_from_bucket_to_bucket(make):
    lm, plain = make()
    assert torch.equal(codes(lm, n_frames=300), codes(plain, n_frames=300))
    assert lm.captures.n_captured == 2


def test_buckets_double_and_end_with_the_cache():
    assert buckets(256) == [256]
    assert buckets(768) == [256, 512, 768]
    assert buckets(1536) == [256, 512, 1024, 1536]


def test_the_step_reads_no_more_of_the_cache_than_its_bucket(make):
    lm, _ = make()
    codes(lm, n_frames=300)
    (run,) = lm.captured._runs.values()
    read = []
    run._captured = {bucket: lambda bucket=bucket: read.append(bucket) for bucket in run._captured}
    run.length = 254
    for _ in range(3):
        run.step()
    assert read == [256, 256, 512]


# --- reuse


def test_the_next_music_of_the_same_shape_captures_nothing(make):
    lm, plain = make()
    codes(lm)
    n_captured = lm.captures.n_captured
    for given in (
        {"seed": 9},
        {"lengths": (6,)},
        {"n_frames": 50},
        {"sampling": Sampling(20, 0.0, 0.7)},
        {"prompt": torch.randint(CARD, (1, 4, 20))},
    ):
        assert torch.equal(codes(lm, **given), codes(plain, **given)), given
    assert lm.captures.n_captured == n_captured and len(lm.captured) == 1


def test_another_shape_is_captured_and_few_are_kept(make):
    lm, _ = make()
    for given in ({}, {"lengths": (5, 5)}, {"guided": False}, {"sampling": Sampling(30)}):
        before = lm.captures.n_captured
        codes(lm, **given)
        assert lm.captures.n_captured > before
    assert len(lm.captured) == MAX_RUNS


def test_a_shape_says_what_is_drawn_how():
    of = [Shape.of(1, True, 300, 12, sampling) for sampling in MODES.values()]
    assert of[0] == of[3] and len(set(of)) == 4
    assert of[0].n_columns == 512 and of[0].n_cross == 16 and of[0].n_rows == 2


# --- weights that move


def moves(lm):
    """As `module.to(device)` does."""
    lm._apply(lambda tensor: tensor.clone())


def moves_one(lm):
    """As ComfyUI's patcher may: layer by layer, behind the model's back."""
    layer = lm.layers[1].up
    layer.weight = torch.nn.Parameter(layer.weight.data.clone(), requires_grad=False)


@pytest.mark.parametrize("move", [moves, moves_one])
def test_weights_that_have_moved_are_captured_anew(make, move):
    lm, plain = make()
    codes(lm)
    before = lm.captures.n_captured
    move(lm)
    assert torch.equal(codes(lm), codes(plain))
    assert lm.captures.n_captured == 2 * before


def test_moving_the_model_frees_buffers_at_once(make):
    lm, _ = make()
    codes(lm)
    assert len(lm.captured) == 1
    lm._apply(lambda tensor: tensor)  # to where it is already
    assert len(lm.captured) == 1
    moves(lm)
    assert len(lm.captured) == 0


def test_a_fake_graph_refuses_stale_memory(make):
    """Else the tests above could not fail."""
    lm, _ = make()
    codes(lm)
    (run,) = lm.captured._runs.values()
    moves_one(lm)
    with pytest.raises(AssertionError, match="stale"):
        run.step()


# --- progress and Cancel


def test_progress_is_told_every_chunk_and_at_the_end(make):
    lm, _ = make()
    seen = []
    codes(lm, on_step=lambda done, total: seen.append((done, total)))
    n_steps = 40 + 3
    assert seen == [(1, n_steps), (1 + CHUNK, n_steps), (n_steps, n_steps)]


def test_a_cancelled_run_leaves_nothing_behind(make):
    lm, plain = make()

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        codes(lm, n_frames=100, on_step=cancel)
    assert torch.equal(codes(lm), codes(plain))


# --- capture on a GPU


class FakeCuda:
    """What capturing takes of torch.cuda, where there is none: counts, and fails a capture as told."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self, failure=None):
        self.failure, self.capturing, self.replayed, self.modes = failure, False, 0, []

    def graph_pool_handle(self):
        return 7

    def Stream(self):
        return types.SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    def CUDAGraph(self):
        return types.SimpleNamespace(replay=lambda: setattr(self, "replayed", self.replayed + 1))

    def device(self, device):
        return contextlib.nullcontext()

    stream = device

    def synchronize(self):
        pass

    @contextlib.contextmanager
    def graph(self, graph, **options):
        inspect.signature(torch.cuda.graph.__init__).bind(None, graph, **options)  # the real one takes them
        self.modes.append(options["capture_error_mode"])
        self.capturing = True
        yield
        self.capturing = False
        if self.failure:
            raise self.failure


def captured_with(monkeypatch, failure=None):
    """The fake, what CudaGraphs gave back for a step, and for each of its runs whether it was captured."""
    cuda, runs = FakeCuda(failure), []
    monkeypatch.setattr(cuda_graphs.torch, "cuda", cuda)

    def step():
        runs.append(cuda.capturing)

    return cuda, cuda_graphs.CudaGraphs(torch.device("cuda"))(step), runs, step


def test_a_step_is_warmed_up_captured_and_replayed(monkeypatch):
    cuda, replay, runs, _ = captured_with(monkeypatch)
    assert runs == [False, False, True]
    assert cuda.modes == ["thread_local"], "ComfyUI's other threads may use the GPU during a capture"
    replay()
    assert cuda.replayed == 1 and len(runs) == 3


def test_a_step_that_cannot_be_captured_runs_as_it_is(monkeypatch, caplog):
    cuda, replay, runs, step = captured_with(monkeypatch, RuntimeError("operation not permitted"))
    assert replay is step and "operation not permitted" in caplog.text
    replay()
    assert cuda.replayed == 0 and runs == [False, False, True, False]


def test_a_gpu_without_memory_for_a_capture_says_so(monkeypatch):
    with pytest.raises(torch.cuda.OutOfMemoryError):
        captured_with(monkeypatch, torch.cuda.OutOfMemoryError("none left"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("mode", MODES)
def test_graphed_equals_eager_on_cuda(make, mode):
    lm, _ = make()
    lm.cuda()
    lm.captured = StaticRuns(lambda device: lambda step: step)
    eager = codes(lm, n_frames=300, sampling=MODES[mode])
    lm.captured = None
    assert torch.equal(codes(lm, n_frames=300, sampling=MODES[mode]), eager)
    lm.cpu()
    assert len(lm.captured) == 0
    lm.cuda()
    assert torch.equal(codes(lm, n_frames=300, sampling=MODES[mode]), eager)
