"""Shapes for every side, and the fast decoder against the plain one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from conocc import networks
from conocc.networks import (
    Autoencoder,
    Dense,
    Encoder,
    UpsampledConv,
    bottleneck_of,
    channels_last,
)


def plain(layer: UpsampledConv, x):
    """Upsample, convolve, crop: the layer as one would write it down."""
    y = F.interpolate(x, scale_factor=2, mode="nearest")
    h, w = layer.size
    return F.conv2d(y, layer.weight, layer.bias, padding=1)[..., :h, :w]


def textbook(network: Autoencoder, x):
    """The whole network as one would write it down, with the weights of the fast one."""
    w = dict(network.named_parameters())

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    for i in range(3):
        conv = f"encoder.convs.{i}"
        x = F.conv2d(x, w[f"{conv}.weight"], w[f"{conv}.bias"], stride=2, padding=1).relu()
    sides = network.decoder.start
    x = linear(linear(x.flatten(1), "encoder.out"), "decoder.into").relu().unflatten(1, sides)
    for conv in network.decoder.convs[:-1]:
        x = plain(conv, x).relu()
    return plain(network.decoder.convs[-1], x)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 25, 18)])
def test_the_network_equals_the_textbook_one_in_value_and_gradient(shape):
    """In float64, to 1e-10; maps are cropped and not, upsampled to few channels and to many."""
    torch.manual_seed(0)
    network = Autoencoder(shape, bottleneck=5, channels=(3, 6, 8)).double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    results = []
    for forward in (network, lambda x: textbook(network, x)):
        x_hat = forward(x)
        gradients = torch.autograd.grad((x_hat - x).square().sum(), list(network.parameters()))
        results.append([x_hat, *gradients])
    for fast, slow in zip(*results, strict=True):
        assert torch.allclose(fast, slow, atol=1e-10)


def test_weights_are_named_as_in_the_textbook_layers():
    """So that a saved model does not hang on how a layer is computed."""
    shapes = {name: tuple(v.shape) for name, v in Autoencoder((1, 16, 16), 5).state_dict().items()}
    assert shapes["encoder.out.weight"] == (5, 64 * 2 * 2)
    assert shapes["decoder.into.bias"] == (64 * 2 * 2,)
    assert shapes["decoder.convs.2.weight"] == (1, 16, 3, 3)


# --- dense layers by oneDNN ----------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_dense_layer_equals_the_plain_one_in_value_and_gradient(bias):
    """In float32, as it runs, against float64."""
    torch.manual_seed(0)
    layer = Dense(40, 30, bias=bias)
    x = torch.randn(7, 40, requires_grad=True)
    g = torch.randn(30, 7).t()  # as gradients come, not always row by row
    inputs = [x, *layer.parameters()]
    fast = [layer(x), *torch.autograd.grad(layer(x), inputs, g)]
    exact = [v.detach().double().requires_grad_() for v in inputs]
    y = F.linear(*exact)
    slow = [y, *torch.autograd.grad(y, exact, g.double())]
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a.double(), b, atol=2e-5)


def test_gradients_of_the_dense_layer_are_exact(monkeypatch):
    """Its formulas in float64, which oneDNN does not multiply: the products are stood in for."""
    monkeypatch.setattr(networks, "_products", F.linear)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (2, 4), 2)]
    assert torch.autograd.gradcheck(networks._DenseByOneDNN.apply, inputs)


@pytest.mark.parametrize("shape", [(1, 16, 16), (9,)])
def test_second_derivatives_of_an_autoencoder_are_refused_or_right(shape):
    """The gradients that are written by hand have none, and say so; they were zero."""
    torch.manual_seed(0)
    network = Autoencoder(shape, bottleneck=5, channels=(3, 4))
    x = torch.randn(2, *shape, requires_grad=True)
    (of_x,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    if len(shape) == 1:
        of_x.square().sum().backward()
        assert x.grad.abs().sum() > 0
        return
    with pytest.raises(RuntimeError, match="once_differentiable"):
        of_x.square().sum().backward()


def test_what_is_exported_has_the_plain_dense_layer():
    """Other programs know no oneDNN."""
    exported = torch.export.export(Autoencoder((1, 16, 16), 4), (torch.zeros(2, 1, 16, 16),))
    targets = {str(node.target) for node in exported.graph.nodes}
    assert any("linear" in target for target in targets)
    assert not any("mkldnn" in target for target in targets)


@pytest.mark.parametrize("c", [1, 3])
def test_channels_lie_together_and_values_stay(c):
    x = torch.arange(2.0 * c * 4 * 5).reshape(2, c, 4, 5)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride() == (4 * 5 * c, 1, 5 * c, c)


@settings(max_examples=15, deadline=None)
@given(h=st.integers(16, 60), w=st.integers(16, 60), c=st.sampled_from([1, 3]))
def test_reconstruction_has_the_exact_size_of_the_image(h, w, c):
    network = Autoencoder((c, h, w), bottleneck=4, channels=(2, 3, 4))
    x = torch.zeros(2, c, h, w)
    assert network.encoder(x).shape == (2, 4)
    assert network(x).shape == x.shape


@pytest.mark.parametrize("shape", [(1, 25, 25), (3, 50, 50), (20,)])
def test_every_parameter_gets_a_gradient(shape):
    torch.manual_seed(0)
    network = Autoencoder(shape, bottleneck=8)
    x = torch.randn(8, *shape)
    (network(x) - x).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_encoder_without_bias_maps_the_zero_image_to_zero():
    encoder = Encoder((1, 16, 16), 8, (4, 4), bias=False)
    assert encoder(torch.zeros(1, 1, 16, 16)).abs().max() == 0


def test_bottleneck_is_as_asked_for_images_and_at_most_half_for_vectors():
    """A vector that passes unchanged has no reconstruction error."""
    assert bottleneck_of((1, 16, 16), 256) == 256
    assert [bottleneck_of((d,), 256) for d in (1, 2, 30, 1000)] == [1, 1, 15, 256]
