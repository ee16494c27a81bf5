"""The value of a formula in LaTeX, as far as latex2sympy and Python's `math` know it together. Nothing is executed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

Number = int | float

_BLANKS = re.compile(r"\\displaystyle|\\quad|\\qquad|~|\\,|\$")
_TIMES = {"*", "\\times", "\\cdot"}
_OVER = {"/", ":", "\\div"}
_RELATIONS: dict[str, Callable[[Number, Number], bool]] = {
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "\\leq": lambda left, right: left <= right,
    "\\le": lambda left, right: left <= right,
    "\\geq": lambda left, right: left >= right,
    "\\ge": lambda left, right: left >= right,
}
_GROUPS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
# Functions of sympy whose names `math` has, too. Others (sec, Abs, ceiling) are parsed there, and then have no value.
_FUNCTIONS: dict[str, Callable[[Number], Number]] = {
    "\\exp": math.exp,
    "\\sin": math.sin,
    "\\cos": math.cos,
    "\\tan": math.tan,
    "\\sinh": math.sinh,
    "\\cosh": math.cosh,
    "\\tanh": math.tanh,
    "\\arcsin": math.asin,
    "\\arccos": math.acos,
    "\\arctan": math.atan,
    "\\arsinh": math.asinh,
    "\\arcosh": math.acosh,
    "\\artanh": math.atanh,
    "\\arcsinh": math.asinh,
    "\\arccosh": math.acosh,
    "\\arctanh": math.atanh,
    "\\floor": math.floor,
}
_INVERSES: dict[str, Callable[[Number], Number]] = {
    "\\sin": math.asin,
    "\\cos": math.acos,
    "\\tan": math.atan,
    "\\sinh": math.asinh,
    "\\cosh": math.acosh,
    "\\tanh": math.atanh,
}
_LOGARITHMS = {"\\log", "\\ln"}
_OTHERS = {
    "\\left",
    "\\right",
    "\\frac",
    "\\sqrt",
    "\\binom",
    "\\pi",
    "\\lfloor",
    "\\rfloor",
    "\\rceil",
    "\\mod",
    "\\{",
    "\\}",
}
_STARTS = {*_GROUPS, *_FUNCTIONS, *_LOGARITHMS, "\\left", "\\frac", "\\sqrt", "\\binom", "\\pi", "\\lfloor", "e", "|"}
_CLOSING = {"\\right", "\\rfloor", "\\rceil", "\\}"}
# The longest command wins, and letters may follow it: `\\pir` is pi times r. Any other command has no value.
_COMMANDS = {*_FUNCTIONS, *_LOGARITHMS, *_OTHERS, *(one for one in (*_TIMES, *_OVER, *_RELATIONS) if one[0] == "\\")}
# Words of the grammar, which end a formula where letters would be names: `3 rows` and `3 triangles` are 3.
_NAMES = (
    "arsinh", "arcsinh", "arcosh", "arccosh", "artanh", "arctanh", "gcd", "lcm", "floor", "ceil", "eye", "zeros",
    "ones", "cols", "rows", "diag", "norm", "rank", "tr", "rref", "hstack", "vstack", "orth", "nullspace", "eig", "svd",
    "matrix", "pmatrix", "bmatrix", "vmatrix",
)  # fmt: skip
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<percent>(?:\d+(?:,\d{3})*(?:\.\d+)?|(?:,\d{3})*\.\d+)\\%)
      | (?P<number>\d+(?:,\d{3})*(?:\.\d+)?|(?:,\d{3})*\.\d+)
      | (?P<command>COMMANDS)
      | (?P<name>NAMES)
      | (?P<letter>[a-zA-Z])
      | (?P<mark>[-+*/()\[\]{}|!^_:;,.<>=&'])
    )""".replace("COMMANDS", "|".join(re.escape(one) for one in sorted(_COMMANDS, key=len, reverse=True))).replace(
        "NAMES", "|".join(_NAMES)
    ),
    re.VERBOSE | re.ASCII,
)
_DEEPEST = 50
_MOST_BITS = 100_000
_LONGEST = 1000


class _NoValueError(Exception):
    pass


def latex_value(text: str) -> Number | None:
    r"""Return the value of a formula in lower case, or None. A quotient is a float, as in Python.

    The grammar is latex2sympy's, oddities included: `1\frac{1}{2}` is a product, `1/2\pi` divides by both, `2^{3}^2` is
    a power of a power, `5:3` a quotient, and a mark that cannot continue a formula ends it (`3.` is 3). Names are no
    numbers, and neither are `e` alone, `\infty`, absolute values, degrees and `45^\circ`. A comparison is 0 or 1.

    Deviation: a quotient by a product has its value. sympy prints some without brackets. An equation has no value,
    where latex2sympy sometimes takes its right side. Sets, permutations and powers of thousands of digits have none.
    """
    if len(text) > _LONGEST:
        return None
    for command in (r"\dfrac", r"\tfrac"):
        text = text.replace(command, r"\frac")
    try:
        value = _Parser(_BLANKS.sub(" ", text)).relation()
        return value if math.isfinite(value) else None
    # No formula, or one without a real value.
    except (_NoValueError, ArithmeticError, ValueError, TypeError):
        return None


class _Parser:
    """Read a formula from left to right, one token ahead, so that what stands behind its end is never looked at."""

    def __init__(self, text: str) -> None:
        self._text, self._end, self._depth = text, 0, 0
        self._kind, self._token = "", ""
        self._step()

    def relation(self) -> Number:
        left = self._sum()
        compare = _RELATIONS.get(self._token)
        if compare is None:
            self._finish()
            return left
        self._step()
        right = self._sum()
        self._finish()
        return int(compare(left, right))

    def _finish(self) -> None:
        """Refuse a list, an equation, an unknown command. Any other mark ends the formula."""
        if self._token in {",", ";", "=", *_RELATIONS} or (self._kind == "command" and self._token not in _CLOSING):
            raise _NoValueError

    def _step(self) -> None:
        found = _TOKEN.match(self._text, self._end)
        if found:
            self._kind, self._token = str(found.lastgroup), found[str(found.lastgroup)]
            self._end = found.end()
        elif self._text[self._end :].strip():
            raise _NoValueError
        else:
            self._kind = self._token = ""

    def _take(self) -> str:
        """Return the token, and go to the next one."""
        token = self._token
        self._step()
        return token

    def _expect(self, token: str) -> None:
        if self._token != token or not token:
            raise _NoValueError
        self._step()

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NoValueError

    def _sum(self) -> Number:
        self._deeper()
        value = self._product()
        while self._token in {"+", "-"}:
            sign = self._take()
            other = self._product()
            value = value + other if sign == "+" else value - other
        self._depth -= 1
        return value

    def _product(self, functions: bool = True) -> Number:
        value = self._signed(functions)
        while self._token in _TIMES or self._token in _OVER or self._token == "\\mod":
            token = self._take()
            other = self._signed(functions)
            value = value * other if token in _TIMES else value / other if token in _OVER else value % other
        return value

    def _signed(self, functions: bool) -> Number:
        sign = 1
        while self._token in {"+", "-"}:
            sign = -sign if self._token == "-" else sign
            self._step()
        return sign * self._juxtaposed(functions)

    def _juxtaposed(self, functions: bool) -> Number:
        value = self._power()
        while self._starts(functions):
            value = value * self._power()
        return value

    def _starts(self, functions: bool) -> bool:
        """Return whether the token starts another factor. In an argument without parentheses no function does."""
        if not functions and (
            self._token in _FUNCTIONS or self._token in _LOGARITHMS or self._token in {"\\sqrt", "e"}
        ):
            return False
        return self._kind in {"number", "percent", "letter"} or self._token in _STARTS

    def _power(self) -> Number:
        value = self._factor()
        while self._token == "^":
            self._step()
            value = _power(value, self._script())
            if self._token == "_":
                self._step()
                self._script()
        while self._token in {"!", "'"}:
            # A prime transposes, which changes no number.
            value = _factorial(value) if self._token == "!" else value
            self._step()
        return value

    def _script(self) -> Number:
        """Read an exponent or a base: a number, pi, or a group in braces."""
        if self._token == "{":
            return self._group()
        if self._kind in {"number", "percent"} or self._token == "\\pi":
            return self._factor()
        raise _NoValueError

    def _factor(self) -> Number:
        token, kind = self._token, self._kind
        if kind in {"number", "percent"}:
            self._step()
            return _number(token.removesuffix("\\%"), percent=kind == "percent")
        if token in _GROUPS or token == "\\left":
            return self._group()
        if token in _FUNCTIONS or token in _LOGARITHMS:
            return self._function()
        self._step()
        if token == "\\pi":
            return math.pi
        if token == "\\frac":
            return self._group("{") / self._group("{")
        if token == "\\binom":
            return math.comb(_whole(self._group("{")), _whole(self._group("{")))
        if token == "\\sqrt":
            root = self._group("[") if self._token == "[" else None
            value = self._group("{")
            return math.sqrt(value) if root is None else _power(value, 1 / root)
        if token == "\\lfloor":
            value = self._sum()
            self._expect("\\rfloor")
            return math.floor(value)
        if token == "e" and self._token == "^":
            self._step()
            exponent = self._script()
            # sympy calls this E, which `math` does not know.
            return math.exp(exponent) if exponent != 1 else _none()
        raise _NoValueError

    def _group(self, opening: str | None = None) -> Number:
        if opening is not None and self._token != opening:
            raise _NoValueError
        sized = self._token == "\\left"
        if sized:
            self._step()
        closing = _GROUPS.get(self._token)
        if closing is None:
            raise _NoValueError
        self._step()
        value = self._sum()
        if sized:
            self._expect("\\right")
        self._expect(closing)
        return value

    def _function(self) -> Number:
        name = self._take()
        scripts: dict[str, Number] = {}
        while self._token in {"^", "_"} and self._token not in scripts:
            place = self._take()
            negative = place == "^" and self._token == "-"
            scripts[place] = _none() if negative else self._script()
        in_brackets = self._token in {"(", "\\left"}
        self._deeper()
        argument = self._group() if in_brackets else self._product(functions=False)
        self._depth -= 1
        power = scripts.get("^")
        if name in _LOGARITHMS:
            if name == "\\ln" and "_" not in scripts:
                # sympy writes its base as E, which `math` does not know.
                raise _NoValueError
            value: Number = math.log(argument, scripts.get("_", 10))
        elif power == -1 and name in _INVERSES:
            return _INVERSES[name](argument)
        else:
            value = _FUNCTIONS[name](argument)
        return value if power is None or power == 0 else _power(value, power)


def _none() -> Number:
    raise _NoValueError


def _number(text: str, *, percent: bool) -> Number:
    digits = text.replace(",", "")
    whole, _, decimals = digits.partition(".")
    # As a quotient of whole numbers, so that 2.0 is whole and 0.333 is the nearest float.
    above, below = int(whole + decimals), 10 ** len(decimals) * (100 if percent else 1)
    return above // below if above % below == 0 else above / below


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) * base.bit_length() > _MOST_BITS:
        raise _NoValueError
    value = base**exponent
    if isinstance(value, complex):
        raise _NoValueError
    return value


def _whole(value: Number) -> int:
    if not isinstance(value, int):
        raise _NoValueError
    return value


def _factorial(value: Number) -> int:
    if _whole(value) > _LONGEST:
        raise _NoValueError
    return math.factorial(_whole(value))
