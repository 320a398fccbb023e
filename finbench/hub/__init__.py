"""The only package that talks to the Hugging Face Hub.

``client`` holds address, account and what a refusal means; ``fetch`` brings safe files here, whole and checked;
``plan`` says what a publication would change; ``push`` does exactly that.
"""

from finbench.hub.client import (
    Unreachable,
    account,
    api,
    data_explained,
    dataset_sha,
    endpoint,
    explained,
    page,
    token_free,
)
from finbench.hub.fetch import SAFE_FILES, Fetched, fetch, fetch_files, snapshot
from finbench.hub.plan import Change, File, Plan, make_plan
from finbench.hub.push import Published, execute

__all__ = [
    "SAFE_FILES",
    "Change",
    "Fetched",
    "File",
    "Plan",
    "Published",
    "Unreachable",
    "account",
    "api",
    "data_explained",
    "dataset_sha",
    "endpoint",
    "execute",
    "explained",
    "fetch",
    "fetch_files",
    "make_plan",
    "page",
    "snapshot",
    "token_free",
]
