"""Changing JSON so that it stays JSON: bytes changed at random hardly ever get past the parser."""

import json
import random
from typing import Any

_NUMBERS = [0, 1, -1, 2, 80, 65536, 1 << 31, 1 << 63, 1 << 64, 10**30, 0.5, 1e308]
_TEXTS = ["", "0", "1", "true", "-5", "5s", "a", "/", "*", "x" * 300, "é", "\u00a0", "\u2028", "\0", "\n"]
_MARKS = ["${", "{", "}", ";", '"', "'", "\\", "#", "~ ^/a{2}", "xn--a", "10.0.0.1:80", "[::1]:80", "unix:/run/a"]
_NESTED = [[], {}, [[]], [1], {"0": 1}, {"a": 1}, {"0": "a", "1": "b"}]
_VALUES: list[Any] = [None, True, False, *_NUMBERS, *_TEXTS, *_MARKS, *_NESTED]


def mutated(text: bytes, words: list[str], chance: random.Random) -> bytes | None:
    """Change a JSON text in one to three places.

    :param words: names and texts that mean something to the target.
    :return: None where it is none to begin with.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for _ in range(chance.randint(1, 3)):
        tree = _changed(tree, words, chance)
    return json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _changed(tree: Any, words: list[str], chance: random.Random) -> Any:
    if isinstance(tree, dict | list) and tree and chance.random() < 0.75:
        place = chance.choice(list(tree)) if isinstance(tree, dict) else chance.randrange(len(tree))
        changed = _changed(tree[place], words, chance)
        tree[place] = changed
        return tree
    how = chance.randrange(8)
    if isinstance(tree, dict):
        name = chance.choice(words) if words else "a"
        if how < 3:
            tree[name] = _value(words, chance)
            return tree
        if how == 3 and tree:
            tree[name] = tree.pop(chance.choice(list(tree)))
            return tree
        if how == 4 and tree:
            del tree[chance.choice(list(tree))]
            return tree
        if how == 5:
            return list(tree.values())
    elif isinstance(tree, list):
        if how < 3:
            tree.insert(chance.randint(0, len(tree)), _value(words, chance))
            return tree
        if how == 3 and tree:
            tree.append(tree[chance.randrange(len(tree))])
            return json.loads(json.dumps(tree))
        if how == 4 and tree:
            del tree[chance.randrange(len(tree))]
            return tree
        if how == 5:
            return {str(number): one for number, one in enumerate(tree)}
    elif isinstance(tree, str) and how < 6:
        place = chance.randint(0, len(tree))
        if how < 2:
            return tree[:place] + chance.choice(words or ["a"]) + tree[place:]
        if how < 4:
            piece = chance.choice(_TEXTS + _MARKS)
            return tree[:place] + piece + tree[place + chance.randint(0, 3) :]
        return tree[:place] + tree[place + chance.randint(1, 4) :]
    elif isinstance(tree, int | float) and how < 3 and not isinstance(tree, bool):
        return str(tree)
    return _value(words, chance) if how < 7 else [tree]


def _value(words: list[str], chance: random.Random) -> Any:
    made = chance.choice(words) if words and chance.random() < 0.3 else chance.choice(_VALUES)
    return json.loads(json.dumps(made))
