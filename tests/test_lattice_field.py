"""Fields and potentials with the symmetry of a periodic lattice: exact divergences, shifts, signs, cost."""

import math
import re
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.model.fields import LatticeField
from boltzflow.model.interpolations import Trainable
from boltzflow.model.lattice.bands import Bands
from boltzflow.model.lattice.networks import LatticePotential
from boltzflow.model.networks import Whitening
from boltzflow.numerics.linalg import Circulant
from boltzflow.testing.model import check_interpolation, check_vector_field, randomize

SIZES = {"num_networks": 2, "width": 5}


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def whitening_of(shape, mean=0.0):
    """A covariance without any symmetry but translations, and a scale of everything other than one."""
    random = np.random.default_rng(len(shape)).uniform(0.5, 2.0, shape)
    axes = tuple(range(len(shape)))
    scale = Circulant(random + np.roll(np.flip(random, axes), 1, axes))
    return Whitening(np.full(scale.dim, mean), scale)


def make_field(shape, key, sign_symmetric=True, max_sites=32, depth=2, mean=0.0):
    options = {"sign_symmetric": sign_symmetric, "max_sites": max_sites, "depth": depth, "key": key}
    return randomize(LatticeField(shape, whitening=whitening_of(shape, mean), **SIZES, **options), key)


def make_potential(shape, key, sign_symmetric=True, max_sites=32, mean=0.0):
    bands = Bands(shape, whitening_of(shape, mean), max_sites)
    return randomize(LatticePotential(bands, sign_symmetric=sign_symmetric, depth=2, key=key, **SIZES), key)


def shifted(x, shape, shift, axis):
    return jnp.roll(x.reshape(shape), shift, axis).reshape(-1)


# --- contracts -------------------------------------------------------------------------------------------------------


def test_fields_of_the_lattice_keep_the_contract(key):
    check_vector_field(make_field((4, 3), key, mean=0.5), key)


FIELDS = [
    ((6,), 32, 2, True),
    ((6,), 32, 2, False),
    ((5,), 32, 1, True),
    ((1,), 32, 2, True),
    ((7,), 32, 3, False),
    ((4, 3), 32, 2, True),
    ((3, 4), 32, 1, False),
    ((2, 2, 3), 32, 2, True),
    ((40,), 8, 2, True),
    ((40,), 7, 1, True),
    ((70,), 70, 2, True),
    ((12, 10), 5, 2, True),
    ((9, 12), 6, 2, False),
]
# Weights in single precision on one lattice of each kind: fine and coarse, of one dimension and more, of both signs.
IN_SINGLE = [FIELDS[1], FIELDS[4], FIELDS[7], FIELDS[8], FIELDS[12]]


@pytest.mark.parametrize(
    "shape, max_sites, depth, sign_symmetric, weights_in_double, error",
    [*((*field, True, 1e-11) for field in FIELDS), *((*field, False, 1e-5) for field in IN_SINGLE)],
)
def test_divergence_is_the_trace_of_the_jacobian(
    shape, max_sites, depth, sign_symmetric, weights_in_double, error, key
):
    """At a point in double precision, in the precision of the weights."""
    with jax.enable_x64(weights_in_double):
        field = make_field(shape, key, sign_symmetric, max_sites, depth)
    assert field.network.sites.weights[0][0].dtype == (jnp.float64 if weights_in_double else jnp.float32)

    @eqx.filter_jit
    def both(field, t, x):
        jacobian = jax.jacfwd(field.velocity, argnums=1)(t, x)
        return *field.velocity_and_divergence(t, x), field.velocity(t, x), jnp.diagonal(jacobian)

    with jax.enable_x64(True):
        velocity, divergence, alone, diagonal = both(field, jnp.asarray(0.4), jax.random.normal(key, (field.dim,)))
        assert divergence.dtype == jnp.float64
        assert abs(divergence - diagonal.sum()) < error * np.abs(diagonal).sum()
        np.testing.assert_allclose(velocity, alone, atol=error * np.abs(alone).max())


def test_path_with_a_potential_of_the_lattice_keeps_its_contract(key):
    chain = DoubleWell(6, 1.5)
    base = Gaussian(np.zeros(6), scale_tril=whitening_of((6,)).decode)
    check_interpolation(Trainable(base, chain, network=make_potential((6,), key), key=key), key)


def test_nothing_moves_before_training(key):
    field = LatticeField((4, 3), sign_symmetric=True, key=key)
    velocity, divergence = eqx.filter_jit(field.velocity_and_divergence)(
        jnp.asarray(0.3), jax.random.normal(key, (12,))
    )
    assert not np.any(velocity) and divergence == 0
    path = LatticePotential(Bands((4, 3)), sign_symmetric=False, depth=1, key=key, **SIZES)
    assert path(jnp.asarray(0.3), jax.random.normal(key, (12,))) == 0


# --- symmetries ------------------------------------------------------------------------------------------------------

SHIFTS = [  # both signs on a fine and on a coarse lattice, and one on each of the others
    ((6,), 32, 1, 0, True),
    ((6,), 32, 1, 0, False),
    ((5,), 32, 2, 0, True),
    ((4, 3), 32, 1, 0, True),
    ((4, 3), 32, 1, 1, False),
    ((2, 2, 3), 32, 1, 2, False),
    ((40,), 8, 5, 0, True),
    ((40,), 8, 5, 0, False),
    ((12, 10), 5, 2, 1, True),
]


@pytest.mark.parametrize("shape, max_sites, shift, axis, sign_symmetric", SHIFTS)
def test_shifting_the_lattice_shifts_the_field_and_not_the_potential(
    shape, max_sites, shift, axis, sign_symmetric, key
):
    with jax.enable_x64(True):
        field = make_field(shape, key, sign_symmetric, max_sites, mean=0.3)
        t = jnp.asarray(0.7)
        x = 2 * jax.random.normal(key, (field.dim,))
        moved = shifted(x, shape, shift, axis)
        both = eqx.filter_jit(field.velocity_and_divergence)
        velocity, divergence = both(t, moved)
        expected, same = both(t, x)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(velocity, shifted(expected, shape, shift, axis), atol=1e-12 * scale)
        assert scale > 0.1 and divergence == pytest.approx(float(same), rel=1e-11)
        potential = eqx.filter_jit(make_potential(shape, key, sign_symmetric, max_sites, mean=0.3))
        assert float(potential(t, moved)[0]) == pytest.approx(float(potential(t, x)[0]), rel=1e-11)


def test_shifts_within_a_site_of_a_coarser_lattice_are_a_symmetry_up_to_aliasing(key):
    """A control of the test above: what it calls exact is not so for these, and they are not far off."""
    field = make_field((40,), key, max_sites=8)
    t = jnp.asarray(0.7)
    x = jax.random.normal(key, (40,))
    velocity = eqx.filter_jit(field.velocity)
    off = np.abs(velocity(t, shifted(x, (40,), 1, 0)) - shifted(velocity(t, x), (40,), 1, 0)).max()
    assert 1e-4 < off / np.abs(velocity(t, x)).max() < 0.5


@pytest.mark.parametrize("shape", [(5,), (4, 3)])
def test_sign_is_a_symmetry_only_where_it_is_asked_for(shape, key):
    mean = 0.3
    t = jnp.asarray(0.2)
    x = jax.random.normal(key, (math.prod(shape),))
    for sign_symmetric in (True, False):
        field = make_field(shape, key, sign_symmetric, mean=mean)
        potential = eqx.filter_jit(make_potential(shape, key, sign_symmetric, mean=mean))
        velocity = eqx.filter_jit(field.velocity)
        size = np.abs(velocity(t, mean + x)).max()
        off = np.abs(velocity(t, mean + x) + velocity(t, mean - x)).max() / size
        off_potential = abs(potential(t, mean + x)[0] / potential(t, mean - x)[0] - 1)
        for error in (off, off_potential):
            assert (error < 1e-4) if sign_symmetric else (error > 1e-2)


# --- cost, and what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(97,), (11, 9)])
def test_no_array_is_as_large_as_a_jacobian(shape, key):
    field = LatticeField(shape, sign_symmetric=True, max_sites=8, key=key, **SIZES)
    batched = jax.vmap(field.velocity_and_divergence, (None, 0))
    program = str(jax.make_jaxpr(batched)(0.5, jnp.ones((13, field.dim))))
    shapes = [tuple(map(int, shape.split(","))) for shape in re.findall(r"\[(\d+(?:,\d+)*)\]", program)]
    sizes = [math.prod(shape) for shape in shapes if 13 in shape]  # the others are there once for all points
    assert 13 * field.dim in sizes and max(sizes) < 13 * field.dim**2 / 2


@pytest.mark.parametrize(
    "whitening",
    [
        Whitening(np.zeros(6), np.arange(1.0, 7.0)),
        Whitening(np.arange(6.0), 1.0),
        Whitening(np.zeros(6), Circulant(np.ones((2, 3)))),
        Whitening(np.zeros(5), 1.0),
        Whitening(np.zeros(6), 1.0, np.eye(6)[:, :2]),
    ],
    ids=["scales", "means", "shape", "dim", "directions"],
)
def test_whitening_that_is_not_the_same_everywhere_is_refused(whitening, key):
    with pytest.raises(InputError, match=r"on a lattice of shape \(6,\) the whitening must be the same at every site"):
        LatticeField((6,), whitening=whitening, key=key)


def test_a_scalar_scale_whitens_a_lattice_too(key):
    options = {"sign_symmetric": True, "key": key, **SIZES}
    field = randomize(LatticeField((6,), whitening=Whitening(np.ones(6), 2.0), **options), key)
    same = randomize(LatticeField((6,), whitening=Whitening(np.ones(6), Circulant(np.full(6, 2.0))), **options), key)
    t = jnp.asarray(0.2)
    x = jax.random.normal(key, (6,))
    assert np.array_equal(field.velocity(t, x), same.velocity(t, x))


def test_bands_of_a_gaussian_have_the_variances_they_say():
    """White z: Σ over the kept modes of the variance in band c, at each site, exactly and not by sampling."""
    with jax.enable_x64(True):
        for shape, max_sites in [((6,), 32), ((40,), 8), ((4, 3), 32), ((12, 10), 5)]:
            bands = Bands(shape, whitening_of(shape), max_sites)
            unit = jnp.eye(math.prod(shape)).reshape(-1, *shape)
            p = jax.jit(jax.vmap(lambda z, bands=bands: bands.split(jnp.fft.rfftn(z, norm="ortho"))))(unit)
            gram = np.einsum("nyb,nyc->ybc", p, p)
            np.testing.assert_allclose(gram, np.broadcast_to(np.diag(bands.variances), gram.shape), atol=1e-12)
            assert bands.variances.max() == pytest.approx(1)


@pytest.mark.parametrize("sizes", [{"width": 0, "depth": 1}, {"width": 3, "depth": 0}])
def test_networks_of_no_size_are_refused(sizes, key):
    with pytest.raises(ValueError, match="must be at least 1"):
        LatticeField((4,), key=key, **sizes)
    with pytest.raises(InputError, match="lattice_shape must be"):
        LatticeField((), key=key)
