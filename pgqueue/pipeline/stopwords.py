"""Function words of the languages that feeds are mostly written in: they tell nothing of a story.

Kept short on purpose: a word stands here only where it is a function word in its own language and
no common content word in another of the list.
"""

# ruff: noqa: RUF001 - Cyrillic words hold letters that look like Latin ones
from __future__ import annotations

_LISTS = {
    "en": """a an the and or but if of to in on at by for with from as is are was were be been being
        it its this that these those he she they we you i his her their our your my him them us who
        whom which what when where why how not no nor so than then there here has have had do does
        did will would can could may might shall should must about after before over under into out
        up down off again more most some any all each other such only own same too very just also
        said says say""",
    "de": """der die das den dem des ein eine einen einem einer eines und oder aber ist sind war
        wird werden wurde hat haben hatte nicht mit von vom zu zum zur bei auf aus nach für über
        auch als wie sich sie er es wir ich ihr dass durch noch nur im am an""",
    "fr": """le la les un une des du de et ou mais est sont était être été ont avait ne pas plus
        que qui dans sur pour par avec sans sous aux au ce cette ces son sa ses leur leurs il elle
        ils elles nous vous se en à d l s n c qu""",
    "es": """el los las una unos unas y o pero es fue ser han ha había no que en con por para sin
        sobre del al lo su sus se como más este esta estos entre cuando también ya""",
    "it": """il gli uno e ma è sono stato della dello dei degli delle nel nella con per tra fra
        che chi non più si anche come alla alle dal dalla sul sulla questo questa ha hanno""",
    "pt": """os as um uma uns umas e mas é foi são não com por da do das dos na nos nas em ao à
        aos às pelo pela que se seu sua mais como também""",
    "nl": """het een en maar zijn was werd worden heeft hebben had niet met van voor op bij naar
        uit ook dat dit die deze er hij zij ze wij om te door aan of""",
    "pl": """i w na z do nie się jest to że jak po o od za przez ale dla oraz przy był była było
        są ma""",
    "sk": """a v vo na z zo do s so sa je sú bol bola bolo nie ako po o od za pre ale aj že to
        si ktorý ktorá ktoré pri""",
    "cs": """se jsou byl byla bylo není jako pro ale také že ze ve který která které při podle""",
    "ru": """и в во на с со не что как по о от за для но это он она они его ее из у к же был была
        было были""",
}

STOPWORDS: frozenset[str] = frozenset(word for words in _LISTS.values() for word in words.split())
"""Folded words that embedding and near-duplicate search leave out."""
