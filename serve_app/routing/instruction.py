"""What a prompt asks for, without what it was wrapped in. Pure; linear in the text's length.

Pasted material says little about how hard a request is, and buries the sentence that does. So quoted spans are blanked, of a long
text the short paragraphs at its ends are read, and courtesies and frames ("please answer the following:") are taken off. What is
left of nothing else stays as it is: a greeting alone is a greeting.
"""

import re

from serve_app.routing import intents

LONGEST = 1_000  # characters of the view: what the embedder reads of it, more or less
LONG_TEXT = 400  # from here on paragraphs are looked at one by one
ASKING = 1_200  # a paragraph that asks is not longer
LEAST = 6  # characters that must be left of a request
PASTED = "…"
ROUNDS = 6  # courtesies that follow one another
TAIL = 120  # characters at the end in which a courtesy is looked for

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_QUOTED = re.compile(
    r'"[^"]{40,}"|“[^”]{40,}”|«[^»]{40,}»|„[^“”"]{40,}[“”"]|‘[^’]{60,}’|「[^」]{20,}」|『[^』]{20,}』|'
    r"(?<!\w)'[^'\n]{60,}'(?!\w)"
)
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
_COURTESY = (
    r"(?:hi|hello|hey|dear|good (?:morning|afternoon|evening|day))(?: (?:there|all|team|everyone|assistant|again))?"
    r"|(?:hallo|guten (?:tag|morgen|abend)|liebes team|bonjour|bonsoir|salut|hola|buenos d[ií]as|buenas tardes|ciao|buongiorno|salve"
    r"|ol[aá]|bom dia|boa tarde|hoi|goedemorgen|goedendag|cze[sś][cć]|dzie[nń] dobry|hej|god morgon|merhaba|iyi g[uü]nler"
    r"|здравствуйте|привет|добрый день|こんにちは|你好|您好|안녕하세요)"
    r"|(?:many )?thanks(?: a lot| so much)?(?: in advance)?(?: for (?:your|the) (?:help|time))?"
    r"|thank you(?: so much| very much)?(?: in advance)?"
    r"(?: for (?:your|the) (?:help|time))?|thx|cheers|(?:kind|best|warm)? ?regards"
    r"|sorry (?:to bother you|for the trouble|if this is silly)"
    r"|(?:vielen|besten|herzlichen)? ?dank(?: im voraus)?|danke(?: sch[oö]n)?(?: im voraus)?|merci(?: beaucoup)?(?: d'avance)?"
    r"|(?:muchas )?gracias"
    r"(?: de antemano)?|grazie(?: mille)?(?: in anticipo)?|(?:muito )?obrigad[oa]|bedankt|alvast bedankt|dank je(?: wel)?|dzi[eę]kuj[eę]"
    r"|tack(?: p[aå] f[oö]rhand)?|te[sş]ekk[uü]rler|заранее спасибо|спасибо"
    r"|よろしくお願いします|お願いします|ありがとうございます|谢谢|拜托了|감사합니다|부탁드립니다"
    r"|please|pls|plz|bitte|s'il (?:vous|te) pla[iî]t|por favor|per favore|per piacere|alsjeblieft|alstublieft|prosz[eę]|sn[aä]lla"
    r"|l[uü]tfen"
    r"|пожалуйста|请|請|quick (?:question|one)|(?:i have )?(?:a|one) (?:quick |short )?question"
)
_REFERENCE = (
    r"(?:as|like) (?:discussed|mentioned|said|agreed|noted|described) (?:above|before|earlier|previously)"
    r"|as per (?:my|our) (?:last|previous) "
    r"(?:message|mail|email)|following up on (?:that|the above|our conversation)|(?:one more|another) (?:thing|question)"
    r"|next question|ok(?:ay)?|so"
    r"|wie (?:oben )?besprochen|wie gesagt|comme (?:discut[eé]|dit) (?:plus haut|pr[eé]c[eé]demment)|como (?:hablamos|dije) antes"
    r"|come (?:detto|discusso) sopra"
)
_FRAME = (
    r"(?:(?:could|can|would|will) you (?:please |kindly )?(?:help me (?:with|and)|answer|tell me|have a look at)?"
    r"|i(?:'d| would) (?:be (?:very )?grateful|appreciate it) if you could|i was wondering if you could"
    r"|(?:please )?(?:answer|respond to|reply to|consider|handle|process) (?:the following|this|my)(?: \w+)?(?: for me)?"
    r"|here is (?:my|the) (?:question|request|task)|my (?:question|request) is"
    r"|(?:bitte )?beantworte(?:n sie)?(?: bitte)?(?: die folgende frage| folgendes| das)?|(?:meine )?frage"
    r"|r[eé]ponds?(?:ez)?(?: [aà] (?:ceci|la question suivante))?"
    r"|responde(?: por favor)?(?: a esto| a lo siguiente)?|rispondi(?: per favore)?(?: a questo)?|responda(?: por favor)?(?: a isto)?"
    r"|beantwoord(?: alsjeblieft)?(?: het volgende| dit)?|odpowiedz(?: prosz[eę])?(?: na to)?|svara(?: p[aå] f[oö]ljande)?"
    r"|cevapla(?:r m[iı]s[iı]n)?|ответь(?:те)?"
    r"(?: на вопрос)?|次の質問に答えてください|请回答(?:以下问题)?|다음 질문에 답해 주세요)"
)
_OPENING = re.compile(rf"\s*(?:(?:{_COURTESY}|{_REFERENCE})(?!\w)[\s,.!;:–—-]*|{_FRAME}(?!\w)\s*[:：,–—-]\s*)", re.IGNORECASE)
_CLOSING = re.compile(rf"([\s,.!?;:–—-]|(?<=[。？！?]))(?:{_COURTESY})[\s,.!;:)–—。！-]*$", re.IGNORECASE)


def instruction(text: str) -> str:
    """What of the text is read for its difficulty, at most `LONGEST` characters and a mark of what was left out."""
    return _view(_asking(_plain(text)))


def alternatives(text: str) -> list[str]:
    """Both ends of a long text of which neither asks: one may be the request and the other pasted. The highest score counts."""
    parts = _paragraphs(_plain(text))
    return [_view(parts[0]), _view(parts[-1])] if len(parts) > 2 and not (_wants(parts[0]) or _wants(parts[-1])) else []


def _plain(text: str) -> str:
    """Without fences, and with quotations blanked."""
    return unquoted(_FENCE.sub("", text).strip() or text)


def unquoted(text: str) -> str:
    """With a mark in place of each long quotation."""
    return _QUOTED.sub(lambda found: f"{found[0][0]}{PASTED}{found[0][-1]}", text)


def _view(text: str) -> str:
    return _ends(unwrapped(text), LONGEST)


def _paragraphs(text: str) -> list[str]:
    """Of a long text; none of a short one."""
    return [part for part in _BLANK_LINE.split(text) if part.strip()] if len(text) > LONG_TEXT else []


def unwrapped(text: str) -> str:
    """Without courtesies and frames at both ends; the text itself where nothing else is left."""
    kept = text.strip()
    for _ in range(ROUNDS):
        opened = kept[found.end() :] if (found := _OPENING.match(kept)) else kept
        tail = max(len(opened) - TAIL, 0)
        closed = opened[: tail + found.end(1)] if (found := _CLOSING.search(opened[tail:])) else opened
        closed = closed.strip(" ,;\n\t")
        if closed == kept or len(closed) < LEAST:
            break
        kept = closed
    return kept


def _asking(text: str) -> str:
    """Of a long text the paragraph at an end that asks, if only one does; else both ends, and a short one as it is."""
    parts = _paragraphs(text)
    if len(parts) < 2:
        return text
    first, last = parts[0], parts[-1]
    wants = [_wants(first), _wants(last)]
    if wants[0] == wants[1]:
        return f"{first}\n{PASTED}\n{last}" if len(parts) > len(wants) else f"{first}\n{last}"
    return first if wants[0] else last


def _wants(paragraph: str) -> bool:
    """Whether it has a question or begins as a request does, and is not too long to be one."""
    return len(paragraph) <= ASKING and ("?" in paragraph or "？" in paragraph or intents.opens(unwrapped(paragraph)))


def _ends(text: str, size: int) -> str:
    half = size * 3 // 5
    return text if len(text) <= size else f"{text[:half]} {PASTED} {text[half - size :]}"
