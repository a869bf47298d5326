"""Translates the texts that a person sees: `tr(text)` is the text in the language of the system.

The catalogues are GNU gettext's, softphone/locale/LANGUAGE/LC_MESSAGES/softphone.mo, made from what
`xgettext --keyword=tr` finds; without one for this language everything is English. (Not Qt's
translator: the user agent makes its sentences without Qt.)

Most texts are constants, translated when their module is imported.
"""

from __future__ import annotations

import gettext
from pathlib import Path

tr = gettext.translation("softphone", Path(__file__).parent / "locale", fallback=True).gettext
