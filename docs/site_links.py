# SPDX-License-Identifier: Apache-2.0
"""Hook of MkDocs: links to files outside docs/ become their paths, as code.

The pages are read in the repository too, where these links lead to sources and examples.
"""

import posixpath
import re
from typing import Any

# A link, perhaps with code as its text, whose target leads out of docs/.
_OUTSIDE = re.compile(r"\[(`?)([^\]`]+)\1\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replaces the links of a page that lead out of docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        _, text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match[0]
        return f"`{path}`" if text in path else f"{text} (`{path}`)"

    return _OUTSIDE.sub(replace, markdown)
