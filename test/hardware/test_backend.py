"""Attention specification: validation, lookup and the protocol."""

from __future__ import annotations

import pytest

from flashrt_core.errors import ConfigError, OpError
from flashrt_core.hardware.backend import AttentionBackend, AttentionBackendBase, AttentionSpec, SiteSpec

ENCODER = dict(num_layers=18, num_q_heads=8, num_kv_heads=1, head_dim=256, max_q_seq=712)


def two_sites() -> AttentionSpec:
    spec = AttentionSpec()
    return spec.add_site("encoder", **ENCODER).add_site(
        "decoder", num_layers=18, num_q_heads=8, num_kv_heads=1, head_dim=256, max_q_seq=10, max_kv_seq=722
    )


def test_defaults_of_a_site():
    site = SiteSpec(**ENCODER)
    assert site.max_kv_seq == site.max_q_seq == 712
    assert (site.batch_axis, site.sliding_window, site.causal, site.extra) == (1, None, False, {})
    assert SiteSpec(**ENCODER).extra is not site.extra


@pytest.mark.parametrize(("q", "kv"), [(8, 16), (8, 3), (1, 2), (8, 0)])
def test_heads_that_cannot_be_grouped_are_refused(q, kv):
    with pytest.raises(ConfigError, match="num_kv_heads"):
        SiteSpec(**{**ENCODER, "num_q_heads": q, "num_kv_heads": kv})


@pytest.mark.parametrize("name", ["num_layers", "num_q_heads", "head_dim", "max_q_seq", "max_kv_seq", "sliding_window"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_numbers_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=name):
        SiteSpec(**{**ENCODER, name: value})


def test_add_site_chains_and_refuses_duplicates_and_typos():
    spec = two_sites()
    assert list(spec.sites) == ["encoder", "decoder"]
    with pytest.raises(ValueError, match=r"'encoder'.*duplicate"):
        spec.add_site("encoder", **ENCODER)
    with pytest.raises(ConfigError, match=r"num_heads.*did you mean"):
        spec.add_site("vision", num_heads=2)
    assert "vision" not in spec.sites


def test_unknown_site_is_a_key_error_with_a_readable_text():
    with pytest.raises(KeyError) as caught:
        two_sites().site("encodr")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("attention site 'encodr'") and "did you mean 'encoder'" in str(caught.value)


def test_backend_base_answers_from_the_spec():
    backend = AttentionBackendBase(two_sites())
    assert isinstance(backend, AttentionBackend)
    assert backend.sites() == ("encoder", "decoder")
    assert (backend.head_dim("decoder"), backend.num_q_heads("decoder"), backend.num_kv_heads("decoder")) == (256, 8, 1)
    with pytest.raises(KeyError):
        backend.head_dim("vision")
    with pytest.raises(NotImplementedError, match="run"):
        backend.run("encoder", 0, 1)


def test_check_run_fills_and_bounds_the_lengths():
    backend = AttentionBackendBase(two_sites())
    assert backend.check_run("encoder", 17, 700, None)[1] == 700
    assert backend.check_run("decoder", 0, 10, 722)[1] == 722


@pytest.mark.parametrize(
    ("site", "layer", "q_seq", "kv_seq", "name"),
    [
        ("encoder", 18, 1, None, "layer_idx"),
        ("encoder", -1, 1, None, "layer_idx"),
        ("encoder", 0, 713, None, "q_seq"),
        ("encoder", 0, 0, None, "q_seq"),
        ("decoder", 0, 10, 723, "kv_seq"),
        ("decoder", 0, 10, None, "kv_seq"),
    ],
)
def test_check_run_names_what_is_out_of_range(site, layer, q_seq, kv_seq, name):
    with pytest.raises(OpError, match=name):
        AttentionBackendBase(two_sites()).check_run(site, layer, q_seq, kv_seq)


def test_an_unrelated_object_is_not_a_backend():
    assert not isinstance(object(), AttentionBackend)
