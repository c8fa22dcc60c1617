"""The model in training: what it sees, what it is to predict, and that the engine computes the same."""

from dataclasses import replace

import torch
from comfyui_musicgen.musicgen.lm import Stream
from comfyui_musicgen.musicgen.lm.delay import delay
from comfyui_musicgen.tests.training.tiny_training import model
from comfyui_musicgen.training.lm.examples import HIDDEN, Batch


def test_a_fresh_model_already_looks_at_the_melody_of_the_moment(tokenizer):
    fresh = model(tokenizer)
    n_melody, n_text, size = fresh.config.melody.n_frames, 14, fresh.config.lm.head_dim
    from comfyui_musicgen.musicgen.lm.transformer import sin_positions

    x = fresh.lm.layers[0].norm_self(sin_positions(n_melody + n_text + 504, 240, torch.device("cpu")))
    q, k, _ = fresh.lm.layers[0].qkv(x).chunk(3, dim=-1)
    for frame in (10, 100, 333, 470):
        scores = q[n_melody + n_text + frame, :size] @ k[:n_melody, :size].t()
        assert abs(int(scores.argmax()) - frame / 6.4) <= 1.5


def test_hidden_frames_are_not_seen(tokenizer, monkeypatch):
    small = model(tokenizer, 64, 2, 1)
    codes_ = torch.randint(32, (1, 4, 20), generator=torch.Generator().manual_seed(1))
    shown = codes_.clone()
    shown[..., 5:9] = HIDDEN
    others = codes_.clone()
    others[..., 5:9] = (others[..., 5:9] + 1) % 32
    seen, run = [], small._run
    monkeypatch.setattr(small, "_run", lambda prefix, codes: (seen.append(codes), run(prefix, codes))[1])
    chroma_ = torch.zeros(1, small.config.melody.n_frames, dtype=torch.long)
    losses = [small(Batch(c, chroma_, ((5, 1),), torch.tensor([True]), shown)).codebooks for c in (codes_, others)]
    assert torch.equal(seen[0], seen[1]) and (seen[0][0, 0, 6:10] == 32).all()
    assert not torch.allclose(losses[0], losses[1]), "but they are to be predicted"


def test_codes_that_sound_alike_start_alike(tokenizer):
    fresh = model(tokenizer, 64, 2, 1)
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(4, 32, 16, generator=generator)
    codebooks[:, 1] = codebooks[:, 0] + 0.01
    before = fresh.lm.embeddings.std()
    fresh.know_codes(codebooks)
    for weights in (fresh.lm.embeddings, fresh.lm.heads.weight.view(4, 32, -1)):
        alike = torch.nn.functional.cosine_similarity(weights[:, 0], weights[:, 1], dim=-1)
        others = torch.nn.functional.cosine_similarity(weights[:, 0, None], weights[:, 2:32], dim=-1)
        assert alike.mean() > 0.3 > others.mean() + 0.1
    assert torch.isclose(fresh.lm.embeddings[:, :32].std(), before, rtol=0.2)


def test_training_sees_the_logits_of_the_engine(tokenizer):
    small = model(tokenizer, 64, 2, 2).eval()
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        torch.randint(32, (2, 4, 20), generator=generator),
        torch.randint(12, (2, small.config.melody.n_frames), generator=generator),
        ((5, 6, 1), (7, 8, 1)),
        torch.tensor([True, False]),
    )
    with torch.no_grad():
        prefix, losses = small.prefix(batch), small(batch).codebooks
        sequence = delay(batch.codes, small.config.lm.delays, 32)
        nothing = torch.zeros(0, 64)
        logits = small.lm(sequence[..., :-1], [Stream(row, nothing) for row in prefix])
        assert torch.allclose(small.logits(prefix, sequence[..., :-1]), logits, atol=1e-4)
    assert not prefix[1, small.config.melody.n_frames :].any()
    for k in range(4):  # codebook k is k steps late: its frame t is predicted by step t + k
        predicted = logits[:, k, k : k + 20].flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(predicted, batch.codes[:, k].flatten())
        assert torch.isclose(losses[k], expected, atol=1e-4)


def test_guesses_stand_where_the_model_would_have_written_them(tokenizer, monkeypatch):
    small = model(tokenizer, 64, 2, 1)
    prefix = torch.zeros(3, 2, 64)
    codes = torch.full((3, 4, 12), 31)
    codes[..., 0] = codes[:, 2, 5:7] = special = 32
    share = torch.tensor([0.0, 1.0, 0.5])
    asked = []

    def logits(prefix, codes):  # column s is followed by s
        asked.append(codes)
        made = torch.full((*codes.shape, special), -100.0)
        made[..., torch.arange(12), torch.arange(12)] = 100.0
        return made

    monkeypatch.setattr(small, "logits", logits)
    seen = small.with_guesses(prefix, codes, share)
    (given,) = asked
    assert torch.equal(given, codes[1:]), "rows without guesses are not run"
    assert torch.equal(seen[0], codes[0])
    hidden = codes == special
    assert torch.equal(seen[hidden], codes[hidden]), "the hidden stays hidden"
    all_guesses = torch.arange(-1, 11).expand(4, 12).where(~hidden[1], special)
    assert torch.equal(seen[1], all_guesses)
    taken = seen[2] == all_guesses
    assert (taken | (seen[2] == codes[2])).all() and 0.2 < taken[~hidden[2]].float().mean() < 0.8
    assert torch.equal(small.with_guesses(prefix, codes, torch.zeros(3)), codes)


def test_what_is_predicted_is_the_clip_whatever_was_guessed(tokenizer, monkeypatch):
    small = model(tokenizer, 64, 2, 1)
    codes = torch.randint(32, (2, 4, 20), generator=torch.Generator().manual_seed(1))
    chroma = torch.zeros(2, small.config.melody.n_frames, dtype=torch.long)
    batch = Batch(codes, chroma, ((5, 1), (6, 1)), torch.tensor([True, True]))
    small(replace(batch, guessed=torch.ones(2))).codebooks.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in small.parameters())
    assert small.text_projection.weight.grad.any()
    with torch.no_grad():
        monkeypatch.setattr(small, "with_guesses", lambda prefix, codes, share: codes)
        told = small(replace(batch, guessed=torch.ones(2))).codebooks
        assert torch.equal(told, small(batch).codebooks)
        monkeypatch.setattr(small, "with_guesses", lambda prefix, codes, share: (codes + 1) % 32)
        assert not torch.allclose(small(replace(batch, guessed=torch.ones(2))).codebooks, told)
