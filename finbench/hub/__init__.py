"""The only package that talks to the Hugging Face Hub.

``client`` holds address, account and what a refusal means; ``listing`` what lies in a repository; ``fetching`` brings
safe files here, whole and checked; ``community`` knows benchmarks and results as the Hub reads them; ``plans`` says
what a publication would change; ``pushing`` does exactly that.
"""

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.hub import dev
    from finbench.hub.client import (
        OFFICIAL,
        Kind,
        Unreachable,
        account,
        check_token,
        data_explained,
        dataset_sha,
        endpoint,
        has_token,
        offline,
        page,
        shown_endpoint,
    )
    from finbench.hub.community import (
        EVAL_YAML,
        FACTS,
        FRAMEWORK,
        OWN,
        BenchmarkRepo,
        benchmark_faults,
        find_benchmark,
        is_called,
        result_faults,
        taken,
    )
    from finbench.hub.fetching import (
        PICKLES,
        SAFE_FILES,
        commit,
        fetch,
        fetch_paths,
        head,
        names_below,
        sha256_there,
    )
    from finbench.hub.plans import Change, File, Plan, make_plan
    from finbench.hub.pushing import Published, execute, moved
else:
    __getattr__ = face(__name__)

__all__ = [
    "EVAL_YAML",
    "FACTS",
    "FRAMEWORK",
    "OFFICIAL",
    "OWN",
    "PICKLES",
    "SAFE_FILES",
    "BenchmarkRepo",
    "Change",
    "File",
    "Kind",
    "Plan",
    "Published",
    "Unreachable",
    "account",
    "benchmark_faults",
    "check_token",
    "commit",
    "data_explained",
    "dataset_sha",
    "dev",
    "endpoint",
    "execute",
    "fetch",
    "fetch_paths",
    "find_benchmark",
    "has_token",
    "head",
    "is_called",
    "make_plan",
    "moved",
    "names_below",
    "offline",
    "page",
    "result_faults",
    "sha256_there",
    "shown_endpoint",
    "taken",
]
