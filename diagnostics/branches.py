"""The fits in a tree: its branches, or itself; and which of them is the reference."""

from __future__ import annotations

import xarray as xr

from .errors import DiagnosticsError
from .reading import HELD_OUT_GROUPS, TRAINING_GROUPS, attribute, kind_of

_GROUPS = {*TRAINING_GROUPS, *HELD_OUT_GROUPS, "posterior", "prior", "sample_stats"}


def fits_of(tree: xr.DataTree) -> dict[str, xr.DataTree]:
    """Return the fits in a tree by name: its children for a comparison, else the tree itself.

    Raises
    ------
    DiagnosticsError
        If `tree` is no DataTree, or is empty.

    Examples
    --------
    >>> fit = xr.DataTree.from_dict({"/observed_data": xr.Dataset({"y": ("row", [1.0])})})
    >>> list(fits_of(xr.DataTree.from_dict({"/NUTS": fit, "/SVI": fit})))
    ['NUTS', 'SVI']
    """
    if not isinstance(tree, xr.DataTree):
        raise DiagnosticsError(
            "tree",
            expected="an ArviZ DataTree",
            got=type(tree).__name__,
            remedy="Make one with ppbdl.to_datatree or arviz.from_dict.",
        )
    if not tree.children:
        raise DiagnosticsError(
            "tree",
            expected="a fit with groups such as /posterior, or several fits as children",
            got="an empty tree",
            remedy="Check the file or the call that made it.",
        )
    # Groups are leaves; fits have groups of their own, or say why they have none.
    fits = {
        name: child
        for name, child in tree.children.items()
        if name not in _GROUPS and (child.children or attribute(child, "failure", ""))
    }
    if fits:
        return fits
    return {str(attribute(tree, "method", "") or "fit"): tree}


def reference_name(tree: xr.DataTree) -> str:
    """Return the reference fit: the one the tree names, else the first MCMC fit, else the first.

    Raises
    ------
    DiagnosticsError
        If the tree names a reference that it doesn't hold.
    """
    fits = fits_of(tree)
    named = str(tree.attrs.get("reference", ""))
    if named and named not in fits:
        raise DiagnosticsError(
            "tree.attrs['reference']",
            expected=f"one of {list(fits)}",
            got=repr(named),
            remedy="Name a fit that the tree holds, or remove the attribute.",
        )
    whole = [name for name, fit in fits.items() if fit.children] or list(fits)
    sampled = (name for name in whole if kind_of(fits[name]) == "mcmc")
    return named or next(sampled, whole[0])
