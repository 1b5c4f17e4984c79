"""Draw problems as vitlocal does, and one at a time as the paper says, and print the statistics of both.

python tests/tools/sequences_table.py

The second way is loops that follow the description step by step and share nothing with the first: numbers
that can't be are drawn again, where vitlocal never draws them.
"""

import argparse
import itertools
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitlocal.data import LIS, Arithmetic, EditDistance, Equations
from vitlocal.data.sequences import PAD
from vitlocal.data.sequences.base import SequenceDataModule

P = 11
Statistics = dict[str, float]
"""Of one problem."""


@dataclass
class Row:
    """A statistic's mean over vitlocal's problems, and over those drawn one at a time."""

    task: str
    name: str
    ours: float
    theirs: float
    error: float

    @property
    def apart(self) -> float:
        """How many standard errors of the difference lie between."""
        return (self.ours - self.theirs) / self.error if self.error else 0.0


def arithmetic(operators: int) -> tuple[list[str], int]:
    """An expression that grows from a number, by trial and error, and that number, its value."""
    answer = random.randrange(P)
    tokens = [str(answer)]
    for _ in range(operators):
        at = random.choice([place for place, token in enumerate(tokens) if token.isdecimal()])
        x = int(tokens[at])
        while True:
            first, sign = random.randrange(P), random.choice("+-*/")
            impossible = {"*": first == 0 != x, "/": (first == 0) != (x == 0)}
            if not impossible.get(sign):
                break
        wanted = {
            "+": lambda second, first=first: (first + second) % P,
            "-": lambda second, first=first: (first - second) % P,
            "*": lambda second, first=first: first * second % P,
            "/": lambda second, first=first: first * pow(second, -1, P) % P,
        }[sign]
        fitting = [second for second in range(sign == "/", P) if wanted(second) == x]
        before, after = tokens[at - 1 : at], tokens[at + 1 : at + 2]
        bracket = before == ["/"] or (sign in "+-" and (before in (["*"], ["-"]) or after in (["*"], ["/"])))
        new = [str(first), sign, str(random.choice(fitting))]
        tokens[at : at + 1] = ["(", *new, ")"] if bracket else new
    return tokens, answer


def of_arithmetic(problem: list[str], answer: int) -> Statistics:
    """Length, share of each operator, brackets, and the answer."""
    signs = sum(token in "+-*/" for token in problem)
    shares = {f"share of {sign}": problem.count(sign) / signs for sign in "+-*/"}
    return {"tokens": len(problem)} | shares | {"brackets": problem.count("("), **_answer(answer)}


def equations(variables: int) -> list[list[int]]:
    """Coefficients and right sides; singular ones are drawn again."""
    while True:
        rows = [[random.randrange(P) for _ in range(variables + 1)] for _ in range(variables)]
        if solved(rows):
            return rows


def solved(rows: list[list[int]]) -> list[int]:
    """The solution modulo P by Gauss and Jordan; empty where there is not a single one."""
    rows = [list(row) for row in rows]
    for column in range(len(rows)):
        pivots = [row for row in range(column, len(rows)) if rows[row][column]]
        if not pivots:
            return []
        rows[column], rows[pivots[0]] = rows[pivots[0]], rows[column]
        inverse = pow(rows[column][column], -1, P)
        rows[column] = [x * inverse % P for x in rows[column]]
        for row in range(len(rows)):
            if row != column:
                factor = rows[row][column]
                rows[row] = [(x - factor * y) % P for x, y in zip(rows[row], rows[column], strict=True)]
    return [row[-1] for row in rows]


def of_equations(rows: list[list[int]], solution: list[int]) -> Statistics:
    """Share of zeros, and the first variable."""
    left = [x for row in rows for x in row[:-1]]
    return {"share of coefficients 0": left.count(0) / len(left), **_answer(solution[0])}


def lis(length: int) -> list[int]:
    """Numbers with one to three increasing segments planted."""
    numbers = [random.randint(length + 1, 249) for _ in range(length)]
    planted = random.randint(3, length)
    cuts = sorted(random.randint(0, planted) for _ in range(random.randint(1, 3) - 1))
    sizes = [end - begin for begin, end in zip([0, *cuts], [*cuts, planted], strict=True)]
    segments = [sorted(random.sample(range(length + 1, 250), size)) for size in sizes]
    places = sorted(random.sample(range(length), planted))
    for place, number in zip(places, itertools.chain(*segments), strict=True):
        numbers[place] = number
    return numbers


def of_lis(numbers: list[int]) -> Statistics:
    """The answer, how often a number is greater than the one before, and the first number."""
    ends: list[int] = []
    for place, number in enumerate(numbers):
        ends.append(1 + max((ends[j] for j in range(place) if numbers[j] < number), default=0))
    rises = sum(one < two for one, two in itertools.pairwise(numbers))
    return {"answer": max(ends), "share of rises": rises / (len(numbers) - 1), "first number": numbers[0]}


def edit_distance(length: int) -> tuple[str, str]:
    """Two strings, the shorter one first."""
    while True:
        letters = random.sample(string.ascii_lowercase, random.randint(3, 10))
        one = "".join(random.choices(letters, k=length))
        if random.random() < 0.4:
            two = "".join(random.choices(letters, k=random.randint(length - 3, length + 2)))
        else:
            two = one
            for _ in range(random.randint(1, length)):
                kind = random.choice(("delete", "substitute", "insert"))
                at = random.randrange(len(two) + (kind == "insert")) if two or kind == "insert" else -1
                if at < 0:
                    break  # nothing is left: too different, below
                letter = "" if kind == "delete" else random.choice(letters)
                two = two[:at] + letter + two[at + (kind != "insert") :]
        if one != two and length - 3 <= len(two) <= length + 2:
            return (one, two) if len(one) <= len(two) else (two, one)


def of_edit_distance(one: str, two: str) -> Statistics:
    """Lengths, letters and the distance."""
    last = [2 * j for j in range(len(two) + 1)]
    for i, x in enumerate(one, 1):
        row = [2 * i]
        for j, y in enumerate(two, 1):
            row.append(min(last[j] + 2, row[j - 1] + 2, last[j - 1] + 3 * (x != y)))
        last = row
    letters = len({*one, *two})
    return {"first length": len(one), "second length": len(two), "letters": letters, "answer": last[-1]}


def _answer(answer: int) -> Statistics:
    return {f"answer is {number}": float(answer == number) for number in (0, 1, P - 1)}


def read(task: SequenceDataModule, text: str) -> Statistics:
    """The statistics of a sequence of vitlocal's."""
    if isinstance(task, Arithmetic):
        problem, answer = text.split(" = ")
        return of_arithmetic(problem.split(), int(answer))
    problem, answer = text.split(" <sep> ")
    if isinstance(task, Equations):
        rows = [[int(word) for word in row.split() if word.isdecimal()] for row in problem.split(",")]
        return of_equations(rows, [int(row.split()[-1]) for row in answer.split(",")])
    if isinstance(task, LIS):
        found = of_lis([int(word) for word in problem.split()])
        assert found["answer"] == int(answer)
        return found
    one, two = (half.replace(" ", "") for half in problem.split("|"))
    found = of_edit_distance(one, two)
    assert found["answer"] == int(answer)
    return found


def one_equations() -> Statistics:
    """Of a system drawn one at a time."""
    rows = equations(3)
    return of_equations(rows, solved(rows))


TASKS: dict[str, tuple[SequenceDataModule, Callable[[], Statistics]]] = {
    "arithmetic, 4 operators": (Arithmetic(4, form="direct"), lambda: of_arithmetic(*arithmetic(4))),
    "equations, 3 variables": (Equations(3, form="direct"), one_equations),
    "LIS of 50": (LIS(50, form="direct"), lambda: of_lis(lis(50))),
    "edit distance of 12": (EditDistance(12, form="direct"), lambda: of_edit_distance(*edit_distance(12))),
}


def compared(count: int) -> list[Row]:
    """Statistics of so many problems of each task, drawn either way."""
    random.seed(0)
    rows = []
    for name, (task, one) in TASKS.items():
        drawn = task.draw(2 * count, np.random.default_rng(0), training=False)[:count]
        ours = [read(task, task.vocabulary.text(row[row != PAD])) for row in drawn]
        theirs = [one() for _ in range(count)]
        for statistic in ours[0]:
            first, second = (np.array([found[statistic] for found in of]) for of in (ours, theirs))
            error = float(np.sqrt(first.var() / len(first) + second.var() / len(second)))
            rows.append(Row(name, statistic, float(first.mean()), float(second.mean()), error))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="problems a task, either way")
    rows = compared(parser.parse_args().count)
    print("| task | mean of | vitlocal | one at a time | standard errors apart |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.task} | {row.name} | {row.ours:.4f} | {row.theirs:.4f} | {row.apart:+.1f} |")
    squares = sum(row.apart**2 for row in rows)
    print(f"\n{len(rows)} statistics; mean square {squares / len(rows):.2f}, 1 by chance alone")


if __name__ == "__main__":
    main()
