"""AnoGAN's own promises: images of any size, augmentation in training only, the search."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from conftest import quick
from conocc import AnoGAN, load
from conocc.detectors import anogan
from interrupting import interrupt_at, same
from shadings import trained_and_untrained_auc


@pytest.fixture(scope="module")
def trained(images):
    """A generator that has learned the twenty images a little."""
    return AnoGAN(epochs=60, batch_size=10, search_steps=30, random_state=0).fit(images)


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 30), (1, 23, 16), (1, 50, 100)])
@pytest.mark.parametrize("channels", [(4,), (4, 5, 6), (4, 4, 4, 4, 4, 4)])
def test_images_of_any_size_are_generated_and_judged(shape, channels):
    gan = anogan.Gan(shape, 10, channels)
    drawn = gan.draw(3)
    assert drawn.shape == (3, *shape)
    assert gan.discriminate(drawn).shape == (3, 1)


def test_the_discriminator_sees_every_pixel_of_an_odd_side():
    gan = anogan.Gan((1, 17, 19), 10, (4, 5, 6)).eval()
    x = torch.zeros(1, 1, 17, 19, requires_grad=True)
    gan.discriminate(x + torch.randn_like(x)).sum().backward()
    assert (x.grad != 0).all()


def test_generated_images_are_not_bounded_by_one(trained, images):
    """A tanh would end at ±1; z-scored images do not."""
    assert np.abs(trained.normalized(images)).max() > 1
    assert np.abs(trained.reconstruct(images)).max() > 1


def test_vectors_have_codes_of_at_most_half_their_length():
    """A code as long as the vector could be found for any vector."""
    X = np.random.default_rng(0).normal(size=(20, 12))
    fitted = quick("anogan").fit(X)
    assert fitted.network_.z_0.shape == (1, 6)
    assert fitted.reconstruct(X).shape == X.shape


@pytest.mark.parametrize("params", [{}, {"channels": (4, 4, 4, 4)}])
def test_a_last_batch_of_one_image_trains(params, images):
    """Nineteen and one; after four halvings of 16 pixels a map has a single one."""
    fitted = quick("anogan", batch_size=19, **params).fit(images)
    assert np.isfinite(fitted.anomaly_score(images)).all()


# --- losses -------------------------------------------------------------------------------------


def test_discriminator_loss_by_hand():
    """D = 1/4 of an image, logit −log 3: −log(1/4) if it is real, −log(3/4) if it is not."""
    logit = torch.tensor([[-np.log(3)]])
    assert anogan.taken_for(True, logit).item() == pytest.approx(np.log(4))
    assert anogan.taken_for(False, logit).item() == pytest.approx(np.log(4 / 3))


def test_search_loss_by_hand():
    """0.9·(|1 − 3| + |0 + 1|) + 0.1·|2 + 2| = 3.1."""
    residual = anogan.distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, -1.0]]))
    discrimination = anogan.distance(torch.tensor([[2.0]]), torch.tensor([[-2.0]]))
    assert anogan.search_loss(residual, discrimination).tolist() == pytest.approx([3.1])


def test_every_weight_of_both_networks_is_learned(images):
    before = quick("anogan", lr=1e-30).fit(images).network_.named_parameters()
    after = dict(quick("anogan").fit(images).network_.named_parameters())
    for name, weight in before:
        if name.endswith("into.bias"):
            continue  # batch normalisation takes out what it adds
        assert not torch.equal(weight, after[name]), name


# --- augmentation -------------------------------------------------------------------------------


def test_augmentation_by_hand():
    """One row of a, b, c, d: as it is; mirrored; moved by one either way, filled by reflection."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(4, 1, 2, 4)
    mirrored = torch.tensor([False, True, False, True])
    still, moved = torch.zeros(4, dtype=torch.long), torch.tensor([0, 0, 1, -1])
    rows = anogan.augmented(x, mirrored, still, moved)[:, 0, 1].tolist()
    assert rows == [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 2, 3], [3, 2, 1, 2]]
    turned = x.mT.contiguous()
    columns = anogan.augmented(turned, mirrored, moved, still)[:, 0, :, 1].tolist()
    assert columns == [[1, 2, 3, 4], [1, 2, 3, 4], [2, 1, 2, 3], [2, 3, 4, 3]]


def test_what_is_drawn_can_be_replayed_and_hangs_on_the_seed():
    x = torch.randn(8, 3, 16, 20)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = anogan.draw_augmentation(x)
        second = anogan.draw_augmentation(x)
        torch.manual_seed(0)
        again = anogan.draw_augmentation(x)
    assert torch.equal(anogan.augmented(x, *first), anogan.augmented(x, *again))
    assert not torch.equal(anogan.augmented(x, *first), anogan.augmented(x, *second))


def test_only_training_augments_and_only_images(images, monkeypatch):
    plain = quick("anogan", augment=False).fit(images)
    calls = []
    original = anogan.augmented
    monkeypatch.setattr(anogan, "augmented", lambda *a: calls.append(1) or original(*a))
    fitted = quick("anogan").fit(images)
    assert len(calls) == 3, "once for each of the three batches"
    fitted.anomaly_score(images)
    fitted.reconstruct(images)
    quick("anogan").fit(images.reshape(20, -1)[:, :8])
    quick("anogan", augment=False).fit(images)
    assert len(calls) == 3
    assert not np.array_equal(plain.anomaly_score(images), fitted.anomaly_score(images))


# --- the search ---------------------------------------------------------------------------------


def test_search_lowers_the_loss_of_every_image(trained, images):
    """From the one z_0 to the score, of images that were learned and of others."""
    for X in (images, images[:, ::-1] ** 3):
        x = torch.from_numpy(trained.normalized(X))
        with torch.no_grad():
            start = trained.network_.z_0.expand(len(x), -1)
            before = trained._left(x, start).numpy()
        assert (trained.anomaly_score(X) < 0.99 * before).all()


def test_score_is_eq_6_of_the_image_and_its_reconstruction(trained, images):
    x, x_hat = (torch.from_numpy(f(images)) for f in (trained.normalized, trained.reconstruct))
    with torch.no_grad():
        f, f_hat = trained.network_.features(x), trained.network_.features(x_hat)
    by_hand = 0.9 * (x - x_hat).abs().sum((1, 2, 3)) + 0.1 * (f - f_hat).abs().sum(1)
    assert np.allclose(trained.anomaly_score(images), by_hand, rtol=1e-5)


def test_longer_searches_find_better_codes(trained, images):
    few, many = (AnoGAN(**{**trained.get_params(), "search_steps": steps}) for steps in (5, 60))
    for detector in (few, many):
        vars(detector).update({k: v for k, v in vars(trained).items() if k.endswith("_")})
    assert (many.anomaly_score(images) < few.anomaly_score(images)).all()


def test_search_leaves_the_networks_alone(images):
    fitted = quick("anogan").fit(images)
    fitted.network_.zero_grad()
    before = {name: value.clone() for name, value in fitted.network_.state_dict().items()}
    fitted.anomaly_score(images)
    for name, value in fitted.network_.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, weight in fitted.network_.named_parameters():
        assert weight.requires_grad, name
        assert weight.grad is None, name


# --- the encoder --------------------------------------------------------------------------------


def test_encoder_loss_by_hand():
    """Pixels (2² + 0)/2 = 2, features 4²/1 = 16."""
    x, drawn = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    f, f_drawn = torch.tensor([[2.0]]), torch.tensor([[-2.0]])
    assert anogan.encoder_loss(x, drawn, f, f_drawn).tolist() == [18.0]


def test_an_encoder_is_trained_for_networks_that_it_leaves_alone(images, monkeypatch):
    """It lowers its own loss, and its score is that loss."""
    made = quick("anogan", codes="encoder", epochs=20, batch_size=10)
    fitted = clone(made).fit(images)
    monkeypatch.setattr(anogan, "ENCODER_LR", 1e-30)
    for name, value in made.fit(images).network_.state_dict().items():
        assert torch.equal(value, fitted.network_.state_dict()[name]), name
    assert all(p.requires_grad for p in fitted.network_.parameters())
    left = [row["E"] for row in fitted.history_ if row["stage"] == "encoder"]
    assert len(left) == 20
    assert left[-1] < 0.95 * left[0]
    x, x_hat = (torch.from_numpy(f(images)) for f in (fitted.normalized, fitted.reconstruct))
    with torch.no_grad():
        f, f_hat = fitted.network_.features(x), fitted.network_.features(x_hat)
    by_hand = ((x - x_hat) ** 2).mean((1, 2, 3)) + ((f - f_hat) ** 2).mean(1)
    assert np.allclose(fitted.anomaly_score(images), by_hand, rtol=1e-5)
    assert np.array_equal(fitted.anomaly_score(images[7:8]), fitted.anomaly_score(images)[7:8])


@pytest.mark.parametrize("step", [7, 16])
def test_an_encoder_is_kept_and_an_interrupted_fit_of_it_goes_on(
    step, images, tmp_path, monkeypatch
):
    """In the networks' stage, whose three epochs take twelve steps, and in the encoder's."""
    unbroken = quick("anogan", codes="encoder", scored_by="correlation", batch_size=8).fit(images)
    interrupt_at(step, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        AnoGAN(**unbroken.get_params()).fit(images, checkpoint=tmp_path / "checkpoint")
    resumed = AnoGAN(**unbroken.get_params()).fit(images, checkpoint=tmp_path / "checkpoint")
    assert same(resumed, unbroken)
    resumed.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.anomaly_score(images), unbroken.anomaly_score(images))
    again.scored_by = "residual"
    assert again.residual_scale_.of == "residual"  # with an encoder each score has its own


def test_an_encoder_makes_codes_of_vectors():
    X = np.random.default_rng(0).normal(size=(20, 12))
    fitted = quick("anogan", codes="encoder").fit(X)
    assert fitted.reconstruct(X).shape == X.shape
    assert np.isfinite(fitted.anomaly_score(X)).all()


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_is_what_makes_it_score_well(seed):
    """Against the same networks, untrained, with a search as long."""
    trained, untrained = trained_and_untrained_auc(
        *("anogan", seed, ("phantom-mri", 128, 64)),
        **{"epochs": 30, "batch_size": 32, "search_steps": 30, "search_lr": 0.1},
    )
    assert trained > untrained + 0.05


def test_the_threshold_comes_of_at_most_256_held_out_images_drawn_by_the_seed():
    """Of 1400 images 280 are held out, of which 256 are searched for, the same ones each time."""
    images = np.random.default_rng(0).random((1400, 16, 16))
    given = {"epochs": 1, "search_steps": 1, "false_alarms": 0.5, "random_state": 3}
    searched = []

    class Counting(AnoGAN):
        def _score(self, x):
            searched.append(len(x))
            return super()._score(x)

    fitted = Counting(**given).fit(images)
    assert sum(searched) == 256
    held_out = images[fitted._held_out(None)[0][1]]
    rows = np.sort(np.random.default_rng(3).choice(280, 256, replace=False))
    assert -fitted.offset_ == np.sort(fitted.anomaly_score(held_out[rows]))[128]
