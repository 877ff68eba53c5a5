"""Learning the code: exact gradients, weights untouched, never worse, repeatable, and resumable."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import fewspikes as fs
from budget_problems import measured as evaluated_on
from fewspikes.base.tensors import read_tensors, write_tensors
from fewspikes.conversion import distillation
from fewspikes.conversion import trainer as training
from fewspikes.conversion.checkpoint import _KIND, Checkpoint
from fewspikes.conversion.distillation import learned
from fewspikes.conversion.trainable import TrainableNeuron
from fewspikes.measure.deal import Images
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.kernels import compiled
from fewspikes.neuron.recurrence import cast, spike_train
from networks import ByName, Pair, small, squeeze_excite

IMAGES = torch.randn(192, 3, 8, 8, generator=torch.Generator().manual_seed(7))


def converted(model, K=2, **options):
    return fs.convert(model, IMAGES, calibration=IMAGES[:64], K=K, **options)


def evaluated(snn):
    return evaluated_on(snn, Images((IMAGES,)))


def output_error(snn, images):
    return float((snn(images) - snn.as_ann()(images)).square().mean())


def same(a, b):
    return all(
        a.neurons[n].code == b.neurons[n].code
        and all(
            (x is None and y is None) or torch.equal(x, y)
            for x, y in ((a.neurons[n].shift, b.neurons[n].shift), (a.neurons[n].scale, b.neurons[n].scale))
        )
        for n in a.neurons
    )


FREE = {"log_range": True, "log_gain": True}


def test_sums_by_step_are_the_sums_over_what_fires():
    p, x, g = fs.published("silu"), torch.randn(3, 5000, dtype=torch.float64) * 4, torch.randn(3, 5000).double()
    _, found = compiled.patterns(x, *cast(p, x))
    expected = torch.stack([(g * z).sum() for z in spike_train(x, *cast(p, x)[:2])])
    assert torch.allclose(compiled.sum_by_step(g, found, p.K), expected, rtol=1e-12)


def test_the_gradient_of_d_and_offset_is_that_of_the_plain_loop():
    p, x = fs.published("silu"), torch.randn(2000, dtype=torch.float64) * 3
    site = TrainableNeuron(fs.FSNeuron(p), Activation("silu"), None, {}, 1.0).double()
    site.d.data, site.offset.data = site.d.data.double(), site.offset.data.double()
    (site(x).square().sum()).backward()
    T, h, d, _ = cast(p, x)
    d.requires_grad_()
    c = torch.zeros((), dtype=torch.float64, requires_grad=True)
    y = c + sum(weight * z for weight, z in zip(d, spike_train(x, T, h), strict=True))
    y.square().sum().backward()
    assert torch.allclose(site.d.grad / site.height, d.grad, rtol=1e-5)
    assert torch.allclose(site.offset.grad / site.height, c.grad, rtol=1e-5)


def test_the_gradient_of_the_input_is_the_activations_inside_the_domain():
    p = fs.published("silu")
    x = torch.tensor([-20.0, -1.0, 0.5, 3.0, 20.0], requires_grad=True)
    TrainableNeuron(fs.FSNeuron(p), Activation("silu"), None, {}, 1.0)(x).sum().backward()
    at = x.detach().requires_grad_()
    nn.functional.silu(at).sum().backward()
    inside = (x >= p.domain[0]) & (x <= p.domain[1])
    assert torch.equal(x.grad, at.grad * inside)
    assert inside.tolist() == [False, True, True, True, False]


def test_a_learning_site_computes_what_its_neuron_computes():
    p = fs.relu_parameters(4, 3.0, "nearest")
    neuron = fs.FSNeuron(p, torch.randn(6) * 0.1, torch.rand(6) + 0.5, gain=torch.rand(6) + 0.5)
    site = TrainableNeuron(neuron, Activation("relu"), 6, FREE, 0.7)
    x = torch.randn(9, 6, 5)
    assert torch.allclose(site(x), neuron(x), atol=1e-6)
    back = site.neuron()
    assert torch.allclose(back.shift, neuron.shift, atol=1e-6)
    assert torch.allclose(back.scale, neuron.scale, atol=1e-6)
    assert torch.allclose(back.gain, neuron.gain, atol=1e-6)


def test_a_learning_silu_with_a_gain_computes_what_its_neuron_computes():
    neuron = fs.FSNeuron(fs.published("silu"), torch.randn(6) * 0.1, gain=torch.rand(6) + 0.5)
    site = TrainableNeuron(neuron, Activation("silu"), 6, {"log_range": False, "log_gain": True}, 0.7)
    x = torch.randn(9, 6, 5)
    assert torch.allclose(site(x), neuron(x), atol=1e-5)
    assert torch.allclose(site.neuron()(x), neuron(x), atol=1e-5)
    assert site.log_range is None


@pytest.mark.parametrize("shape", [(9, 6, 5, 4), (70, 6), (3, 6, 5000)])
@pytest.mark.parametrize("price", [0.0, 2.0])
def test_a_learning_relu_has_the_gradients_of_the_clipped_relu_straight_through(shape, price):
    p = fs.relu_parameters(3, 2.0, "nearest")
    own = [torch.rand(6).double() + 0.5 for _ in range(2)]
    neuron = fs.FSNeuron(p, torch.randn(6).double() * 0.1, own[0], gain=own[1])
    site = TrainableNeuron(neuron, Activation("relu"), 6, FREE, 0.7)
    site.counting = price > 0
    x = (1.5 * torch.randn(*shape, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(*shape, dtype=torch.float64)
    loss = (weight * site(x)).sum() + (price * site.mean_spikes if price else 0)
    loss.backward()
    given = [x.detach().clone(), *(v.detach().double() for v in (site.shift, site.log_range, site.log_gain))]
    at, shift, log_range, log_gain = (v.requires_grad_() for v in given)
    wide = (1, 6, *[1] * (len(shape) - 2))
    scale = log_range.exp().view(wide)
    u = (at + (shift * 0.7).view(wide)) / scale
    steps, spikes = fs.apply(u.detach(), p)
    clipped = u.relu() * (u <= site.live[1])
    expected = (weight * log_gain.exp().view(wide) * scale * (steps + clipped - clipped.detach())).sum()
    if price:
        above, below = (fs.apply(u.detach() + by, p)[1].double() for by in (site.smooth, -site.smooth))
        expected = expected + price * ((above - below) / (2 * site.smooth) * u).mean()
        assert float(site.mean_spikes.detach()) == pytest.approx(float(spikes.double().mean()))
    expected.backward()
    assert torch.allclose(x.grad, at.grad, atol=1e-9)
    assert torch.allclose(site.shift.grad.double(), shift.grad, rtol=1e-4)
    assert torch.allclose(site.log_range.grad.double(), log_range.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(site.log_gain.grad.double(), log_gain.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [small, squeeze_excite])
def test_distilling_lowers_the_outputs_error_on_images_it_never_saw(make):
    snn = converted(make(), K=3)
    better = fs.distil(snn, torch.randn(1000, 3, 8, 8), steps=100)
    fresh = torch.randn(256, 3, 8, 8)
    assert output_error(better, fresh) < output_error(snn, fresh)
    assert better.report.notes[-1].startswith("distilled for")


def test_the_network_it_was_given_and_all_weights_stay_as_they_were():
    snn = converted(small())
    before, outputs = {k: v.clone() for k, v in snn.tensors.items()}, snn(IMAGES)
    better = fs.distil(snn, IMAGES, steps=20)
    assert torch.equal(snn(IMAGES), outputs)
    assert all(torch.equal(before[k], v) for k, v in better.tensors.items())


def test_a_relus_code_stays_binary_and_other_codes_learn_d_and_offset():
    relu, better = converted(small()), fs.distil(converted(small()), IMAGES, steps=20)
    assert all(better.neurons[n].code == relu.neurons[n].code for n in relu.neurons)
    silu = converted(squeeze_excite(), K=4)
    better = fs.distil(silu, IMAGES, steps=120)
    assert any((better.neurons[n].code.d != silu.neurons[n].code.d).any() for n in silu.neurons)
    assert all((better.neurons[n].code.T == silu.neurons[n].code.T).all() for n in silu.neurons)


def test_the_same_seed_and_steps_give_the_same_network():
    snn = converted(small())
    assert same(fs.distil(snn, IMAGES, steps=30, seed=4), fs.distil(snn, IMAGES, steps=30, seed=4))
    assert not same(fs.distil(snn, IMAGES, steps=30, seed=4), fs.distil(snn, IMAGES, steps=30, seed=5))


def test_it_is_never_worse_than_before(monkeypatch):
    monkeypatch.setattr(training, "_RATES", {"shift": 1e3, "log_range": 1e1, "d": 1e3, "offset": 1e3})
    snn = converted(small(), K=4)
    kept = fs.distil(snn, IMAGES, steps=12)
    assert same(kept, snn)
    assert "distilled in vain" in kept.report.notes[-1]


def test_a_loss_that_turns_nan_stops_it_and_keeps_the_best(monkeypatch):
    step = training.Trainer.step
    taken = []

    def broken(self, share):
        taken.append(share)
        return float("nan") if len(taken) > 25 else step(self, share)

    monkeypatch.setattr(training.Trainer, "step", broken)
    kept = fs.distil(converted(small()), IMAGES, steps=60)
    assert any("the loss turned nan at step 26" in note for note in kept.report.notes)
    assert len(taken) == 26
    assert torch.isfinite(kept(IMAGES)).all()


def test_a_price_trades_error_for_spikes():
    snn, spikes = converted(small(), K=4), []
    for price in (0.0, 0.1):
        better = fs.distil(snn, IMAGES, steps=80, spike_price=price)
        with fs.count(better) as counts:
            better(IMAGES)
        spikes.append(counts.per_neuron)
    assert spikes[1] < 0.97 * spikes[0]


def test_a_run_that_was_cut_goes_on_to_the_same_network(tmp_path, monkeypatch):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    whole = fs.distil(snn, IMAGES, steps=60)
    measure, seen = training.Trainer.measure, []

    def cut(self, *args):
        seen.append(args)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return measure(self, *args)

    monkeypatch.setattr(training.Trainer, "measure", cut)
    with pytest.raises(KeyboardInterrupt):
        fs.distil(snn, IMAGES, steps=60, checkpoint=file)
    monkeypatch.setattr(training.Trainer, "measure", measure)
    steps = []
    step = training.Trainer.step
    monkeypatch.setattr(training.Trainer, "step", lambda self, share: steps.append(1) or step(self, share))
    resumed = fs.distil(snn, IMAGES, steps=60, checkpoint=file)
    assert len(steps) == 30  # stages 4 to 6 of 6
    assert same(resumed, whole)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    with pytest.raises(fs.FewSpikesError, match="checkpoint of another run"):
        fs.distil(snn, IMAGES, steps=6, seed=1, checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(fs.FewSpikesError, match="no complete checkpoint"):
        fs.distil(snn, IMAGES, steps=6, checkpoint=file)


def test_a_checkpoint_in_which_one_bit_was_changed_is_refused(tmp_path):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(fs.FewSpikesError, match="its checksum differs; remove it to begin again"):
        fs.distil(snn, IMAGES, steps=6, checkpoint=file)


def swapped(snn):
    """The same network with two weights of its head exchanged: every sum over them is as before."""
    other = fs.convert(small(), IMAGES, calibration=IMAGES[:64], K=2)
    head = other.tensors["weights.head.weight"]
    head[0, 0], head[1, 0] = head[1, 0].clone(), head[0, 0].clone()
    return other


@pytest.mark.parametrize(
    ("network", "images", "options"),
    [
        (swapped, IMAGES, {}),
        (lambda snn: snn, IMAGES.roll(1, 3), {}),
        (lambda snn: snn, IMAGES[:-1], {}),
        (lambda snn: snn, IMAGES, {"steps": 7}),
        (lambda snn: snn, IMAGES, {"spike_price": 1e-9}),
    ],
    ids=["weights", "pixels", "images", "steps", "price"],
)
def test_a_checkpoint_knows_its_network_its_images_and_its_settings(tmp_path, network, images, options):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    with pytest.raises(fs.FewSpikesError, match="checkpoint of another run"):
        fs.distil(network(snn), images, **{"steps": 6, **options}, checkpoint=file)


def test_a_forged_checkpoint_of_other_shapes_is_refused(tmp_path):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    content, tensors = read_tensors(file, _KIND)
    name = next(name for name in tensors if name.startswith("stage.1."))
    for forged in ({**content, "stages": []}, {**content, "stages": [5]}, {"run": content["run"]}):
        write_tensors(file, _KIND, forged, tensors)
        with pytest.raises(fs.FewSpikesError, match="is no valid checkpoint: .*; remove it to begin again"):
            fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    for changed in ({**tensors, name: torch.zeros(1)}, {k: v for k, v in tensors.items() if k != "random"}):
        write_tensors(file, _KIND, content, changed)
        with pytest.raises(fs.FewSpikesError, match="is no valid checkpoint"):
            fs.distil(snn, IMAGES, steps=6, checkpoint=file)


def test_a_stage_whose_error_is_no_number_comes_back_from_its_file():
    worst = training.Stage(1.0, 2, replace(evaluated(converted(small())), error=math.nan))
    again = training.Stage.from_json(json.loads(json.dumps(worst.to_json(), allow_nan=False)))
    assert math.isnan(again.measured.error)
    assert replace(again.measured, error=0.0) == replace(worst.measured, error=0.0)


def test_the_best_stage_is_the_one_with_the_least_score():
    worth = evaluated(converted(small()))
    given = (1.0, 1.0), (0.5, 1.0), (0.45, 2.0)
    stages = [training.Stage(0, 0, replace(worth, error=e, spikes_per_neuron=s)) for e, s in given]
    done = Checkpoint("x", stages)
    assert done.best(0.0) is stages[2]
    assert done.best(0.1) is stages[1]  # 0.6 against 0.65
    assert done.best(0.0, lambda stage: stage.measured.spikes_per_neuron < 2) is stages[1]
    assert stages[1].score(0.1) == pytest.approx(math.log(0.6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0}, "minutes must be a finite number > 0"),
        ({"minutes": float("nan")}, "minutes must be a finite number > 0"),
        ({"steps": 0}, "steps must be a whole number from 1 to"),
        ({"steps": 5, "minutes": 1.0}, "minutes and steps both say how long; give one of them"),
        ({"spike_price": -1.0}, "spike_price must be a finite number >= 0"),
        ({"reference": nn.Dropout()}, "call reference.eval"),
        ({"minutes": "1"}, "minutes must be a finite number > 0; got '1'"),
        ({"steps": 10**400}, "steps must be a whole number from 1 to"),
        ({"spike_price": 1e308}, "spike_price must be at most"),
        ({"seed": ()}, "seed must be a whole number from 0 to"),
        ({"seed": 10**400}, "seed must be a whole number from 0 to"),
        ({"steps": 5, "checkpoint": "/"}, "cannot write /: it is a folder; give a file name"),
        ({"steps": 5, "checkpoint": "/no/such/place.safetensors"}, "cannot write .* make it first"),
    ],
)
def test_a_setting_out_of_range_raises(options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.distil(converted(small()), IMAGES, **options)


def test_one_image_is_too_few():
    with pytest.raises(fs.FewSpikesError, match="at least 2 images"):
        fs.distil(converted(small()), IMAGES[:1], steps=1)


def test_what_is_no_converted_network_raises():
    with pytest.raises(fs.FewSpikesError, match="needs a converted network; got Small"):
        fs.distil(small(), IMAGES, steps=1)


def test_convert_distils_when_asked_and_needs_images_for_it():
    snn = converted(small(), distil=0.01)
    assert any(note.startswith("distilled") for note in snn.report.notes)
    with pytest.raises(fs.FewSpikesError, match="distilling cannot act: no images"):
        fs.convert(small(), IMAGES, K=4, alpha=3.0, distil=0.01)


def test_a_distilled_network_comes_back_from_its_file_bit_for_bit(tmp_path):
    better = fs.distil(converted(squeeze_excite(), K=4), IMAGES, steps=20)
    fs.save(better, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(IMAGES), better(IMAGES))


def test_with_nothing_to_learn_the_network_comes_back_and_says_so():
    class Turned(nn.Module):  # one branch has its channels on axis 1, the other on the last: no axis is common
        def __init__(self):
            super().__init__()
            self.conv, self.linear, self.head = nn.Conv1d(6, 6, 1), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x) + self.linear(x)))

    x = torch.randn(16, 6, 6)
    snn = fs.convert(Turned().eval(), x, x, K=3)
    assert any("repair: nothing was tried" in note for note in snn.report.notes)
    better = fs.distil(snn, x, steps=3)
    assert same(better, snn)
    assert "nothing can be learned" in better.report.notes[-1]


def test_a_reference_that_takes_its_inputs_by_name_is_learned_from():
    class KeywordOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, *, a, b):
            return self.head(torch.relu(self.linear(a - 2 * b)))

    model, batch = KeywordOnly().eval(), {"a": torch.randn(64, 4), "b": torch.randn(64, 4)}
    snn = fs.convert(model, batch, batch, K=3)
    assert same(fs.distil(snn, batch, steps=10, reference=model), fs.distil(snn, batch, steps=10))


def test_a_reference_that_views_its_convolutions_output_is_learned_from():
    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).view(-1, 4 * 36))

    model = Viewed().eval()  # a view fails on channels that lie last in memory
    snn = fs.convert(model, IMAGES, IMAGES, K=3)
    assert fs.distil(snn, IMAGES, steps=5, reference=model).report.notes[-1].startswith("distilled")


def test_another_reference_is_another_run(tmp_path):
    snn, file = converted(small()), tmp_path / "run.safetensors"
    fs.distil(snn, IMAGES, steps=6, checkpoint=file)
    other = small()
    other.head.weight.data *= 2
    with pytest.raises(fs.FewSpikesError, match="checkpoint of another run"):
        fs.distil(snn, IMAGES, steps=6, reference=other, checkpoint=file)


@pytest.mark.parametrize("pull", [0.0, 10.0], ids=["by choice of the stage", "by the loss"])
def test_distilling_within_a_budget_of_spikes_keeps_it(pull, monkeypatch):
    monkeypatch.setattr(training, "_OVER", pull)
    snn, fresh = converted(small(), K=1), Images((torch.randn(256, 3, 8, 8),))
    held, rest = fresh.apart(64)
    limit = 1.005 * evaluated_on(snn, held).spikes_per_neuron

    def after(budget, most):
        trainer = training.Trainer(snn, rest, held, snn.as_ann(), 0.0, 0, most)
        return evaluated_on(learned(trainer, None, 60, budget), held)

    assert after(None, None).spikes_per_neuron > 1.05 * limit
    assert after(fs.Budget(spikes=limit), limit).spikes_per_neuron <= limit


def test_in_a_budget_distilling_learns_on_no_image_held_out(monkeypatch):
    seen, make = [], training.Trainer

    def recorded(snn, images, held, *rest):
        seen.append((images.inputs[0], held.inputs[0]))
        return make(snn, images, held, *rest)

    monkeypatch.setattr(distillation, "Trainer", recorded)
    fs.convert(small(), IMAGES, IMAGES, max_steps=6, distil=0.001)
    ((images, held),) = seen
    assert torch.equal(held, IMAGES[3::4])  # every fourth
    assert not any(torch.equal(image, other) for image in images for other in held)
    assert len(images) + len(held) == len(IMAGES)


@pytest.mark.parametrize("make", [Pair, ByName])
def test_a_reference_of_two_inputs_gets_them_by_name(make):
    torch.manual_seed(0)
    model, p, q = make().eval(), torch.randn(64, 4), torch.randn(64, 4)
    snn = fs.convert(model, {"q": q, "p": p}, (p, q), K=4)
    named, tupled = (fs.distil(snn, given, steps=4, reference=model) for given in ({"q": q, "p": p}, (p, q)))
    assert same(named, tupled)
    assert same(named, fs.distil(snn, (p, q), steps=4))
