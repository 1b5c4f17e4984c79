"""Answers and chains of all tasks, found again in another way: from the text alone, by slow loops."""

import itertools
import operator
import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass
class Mod:
    """A number modulo p with Python's own operators, so that Python itself reads an expression."""

    value: int
    p: int

    def _with(self, other, operation):
        return Mod(operation(self.value, other.value) % self.p, self.p)

    def __add__(self, other):
        return self._with(other, operator.add)

    def __sub__(self, other):
        return self._with(other, operator.sub)

    def __mul__(self, other):
        return self._with(other, operator.mul)

    def __truediv__(self, other):
        assert other.value, "division by 0"
        (quotient,) = [x for x in range(self.p) if x * other.value % self.p == self.value]
        return Mod(quotient, self.p)


def value(expression, p):
    return eval(re.sub(r"\d+", rf"Mod(\g<0>, {p})", expression), {"Mod": Mod}).value


def collapses(before, after, p):
    """Whether one operation of two numbers, brackets with it, became its value."""
    before, after = before.split(), after.split()
    for bracket in (0, 1):
        for at in range(len(before) - 2 - 2 * bracket):
            piece = before[at : at + 3 + 2 * bracket]
            inner = piece[1:-1] if bracket else piece
            pair = inner[0].isdecimal() and inner[2].isdecimal() and inner[1] in "+-*/"
            if pair and (not bracket or (piece[0], piece[-1]) == ("(", ")")):
                number = str(value(" ".join(inner), p))
                if [*before[:at], number, *before[at + len(piece) :]] == after:
                    return True
    return False


def check_arithmetic(text, chain, p, operators):
    steps = [step.strip() for step in text.split("=")]
    assert sum(steps[0].count(sign) for sign in "+-*/") == operators
    assert len(steps) == (operators + 1 if chain else 2)
    assert {value(step, p) for step in steps} == {int(steps[-1])}
    if chain:
        assert all(collapses(one, two, p) for one, two in itertools.pairwise(steps))


def coefficients(row, variables):
    left, right = row.split("=")
    found = [0] * variables
    for term in left.split("+"):
        *number, letter = term.split()
        found["abcde".index(letter)] = int(number[0]) if number else 1
    return [*found, int(right)]


def solution(system, p):
    """By elimination in fractions, which are brought into Z_p only at the end."""
    rows = [[Fraction(x) for x in row] for row in system]
    n = len(rows)
    for column in range(n):
        pivot = next(row for row in range(column, n) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(n):
            if row != column:
                factor = rows[row][column] / rows[column][column]
                rows[row] = [x - factor * y for x, y in zip(rows[row], rows[column], strict=True)]
    found = [rows[k][n] / rows[k][k] for k in range(n)]
    return [x.numerator * pow(x.denominator, -1, p) % p for x in found]


def check_equations(text, chain, p, variables):
    states = [[coefficients(row, variables) for row in state.split(",")] for state in text.split("<sep>")]
    assert len(states) == (variables + 1 if chain else 2)
    system, found = states[0], solution(states[0], p)
    assert states[-1] == [[int(j == k) for j in range(variables)] + [found[k]] for k in range(variables)]
    for processed, state in enumerate(states[:-1]):
        for number, row in enumerate(state):
            assert sum(c * x for c, x in zip(row, found, strict=False)) % p == row[-1]
            assert row[:processed] == [int(number == column) for column in range(processed)]
        # Before an elimination step all rows are full; what it leaves out, it leaves out of done columns.
        assert len(state) == variables
    written = text.split("<sep>")[0]
    assert written.count("+") == variables * (variables - 1) and len(system) == variables


def check_lis(text, chain):
    first, *table, answer = text.split("<sep>")
    numbers = [int(x) for x in first.split()]
    assert len(table) == int(chain)
    ends = []
    for i, x in enumerate(numbers):
        best = 0
        for j in range(i):
            if numbers[j] < x and ends[j] > best:
                best = ends[j]
        ends.append(best + 1)
    if chain:
        assert [int(x) for x in table[0].split()] == ends
    assert int(answer) == max(ends)
    assert min(numbers) > len(numbers) and max(numbers) < 250


def check_edit_distance(text, chain, length):
    problem, *rows, answer = text.split("<sep>")
    one, two = (half.split() for half in problem.split("|"))
    assert len(one) <= len(two) and one != two and length in (len(one), len(two))
    assert length - 3 <= len(one) and len(two) <= length + 2
    last = [2 * j for j in range(len(two) + 1)]
    found = []
    for i, x in enumerate(one, 1):
        row = [2 * i]
        for j, y in enumerate(two, 1):
            row.append(min(last[j] + 2, row[j - 1] + 2, last[j - 1] + (0 if x == y else 3)))
        found.append(row[1:])
        last = row
    assert int(answer) == last[-1]
    if chain:
        *given, empty = rows[0].split(",")
        assert not empty.strip() and [[int(x) for x in row.split()] for row in given] == found
