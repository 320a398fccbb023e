"""Write the four mini data sets: eight JSONL files beside this script, the same bytes every time.

    python tasks/mini/generate.py           # (re)write the files
    python tasks/mini/generate.py --check   # exit 1 and name the file if one differs

Every company, person and place is invented and every sentence was written for this project. The test split
needs generalising: its companies, people, places, goods, direction words, key phrases, numbers, XBRL elements
and sentence shapes do not occur in train. In a sentence with a concession ("Although sales fell, profit
rose") the main clause decides the label. The script checks its own promises and raises if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Row = dict[str, Any]
HERE = pathlib.Path(__file__).resolve().parent
ROWS = {"train": 600, "test": 150}


def _pool(table: str, sep: str | None = "|") -> list[str]:
    """The entries of a table, separated by ``sep`` (None: by blanks)."""
    return [" ".join(entry.split()) for entry in table.split(sep)]


# ---------------------------------------------------------------------------------------- shared pools
STEMS = {
    "train": _pool(
        """Orvane Quellmar Brastow Tindrel Velmoor Karsund Pellwick Drenholm Sarvund Lundrow
        Marquell Fennaby Ostvale Brinmoor Callthorn Delvany Eskerow Farnwyke Gorsmere Hathvale Ilvarra
        Jarnholt Kestrow Lormund Mirrowen Nordquell Olvanta Prestwane Quarrow Rivaunt Sondmere Tarvane Umbrast
        Vastholm Wexmoor Yarrowin Zendrick Ashvorne Belquorn Corvell Dasholm Elmquay Fjalvane Grendale Hexmoor
        Irvanta Jolquist Kelbrane Lanthorpe Mossvane Nyvarra Osterlow Pyrwick Quinthrel Rosvane Skarholt
        Thorvund Ulvanne Varquist Wolmarsh Yelvane Zorrick Abrenna Bosvarn Cindral Dorvik""",
        None,
    ),
    "test": _pool(
        """Aldermoss Bexholm Calvarne Drosmere Elvestra Frostane Galdwin Hollandry Imberlow Jostrand
        Kilvarra Larkmoss Mendrake Norvelle Obrenn Palvarro Quenlow Rastmere Solvaney Trevanth Ulmgarth
        Vorlane Westrill Xandrel Yorvath Zelmount Arkhollow Brelvane Cundrel Dalvorne Ethmoor Furwick Gansmere
        Helvrick""",
        None,
    ),
}
SUFFIXES = _pool("Group|Group|Holdings|plc|plc|Inc|Industries|Partners|Corporation")
PLACES = {
    "train": _pool("""Port Merrin|Kelsund|Tarrow Bay|North Orrin|Vasterby|Lindmouth|Varnia|Corrobay|Eastmarch
        |Halbrook|Jutvik|Marrowfield|Oskerra|Pellamy|Rivermoor|Sallowford|Tessamo|Ulvanger|Wynmouth|Zarvo
        |Beldon Hills|Crestavia|Dunmarra|Elsmark|Fenwater|Graustadt|Hollin Bridge|Istraval|Kaldemar|Lomvia
        |Nethergarth|Old Quay|Pinemark|Quarnby|Saint Orla|Tollburg"""),
    "test": _pool("""Cape Ellory|Fort Hask|Lake Dunnow|Morvania|Astelburg|Birchaven|Copperhollow|Dravino
        |Emberfield|Glasmere|Hythewick|Iskavar|Juneport|Kirrawell|Lowfern|Mount Tavry|Oldenshaw|Pelorra
        |Rookhaven|Sundray|Thistledown|Wadebury"""),
}
GOODS = {
    "train": _pool("""copper|wheat|cocoa|nickel|coffee|cotton|crude oil|rubber|zinc|sugar|barley|steel|tea
        |wool|cobalt"""),
    "test": _pool("""aluminium|corn|silver|lumber|palm oil|natural gas|rapeseed|platinum|rice|orange juice
        |pork"""),
}
DAYS = {"train": _pool("Monday|Wednesday|Thursday"), "test": _pool("Tuesday|Friday")}
MONTHS = {
    "train": _pool("January|March|April|June|September|October|November"),
    "test": _pool("February|May|August|December"),
}
MONEY = {"train": "EUR {} million", "test": "${} million"}
PERCENT = {"train": " percent", "test": "%"}


class Verb(NamedTuple):
    base: str
    past: str
    noun: str  # may be empty
    scope: str  # g good metric, b bad metric, l loss, h price headline


def _verbs(table: str) -> list[Verb]:
    """Entries ``base/past/noun/scope``; noun and scope may be missing."""
    parts = [[*entry.split("/"), "", ""][:4] for entry in _pool(table)]
    return [Verb(base, past, noun, scope or "gblh") for base, past, noun, scope in parts]


VERBS = {
    "train": {
        "up": _verbs("""rise/rose/a rise|climb/climbed/a climb|increase/increased/an increase
            |jump/jumped/a jump|go up/went up|grow/grew/growth/gbl|gain/gained//h|move higher/moved higher
            |improve/improved/an improvement/g|widen/widened/a widening/l"""),
        "down": _verbs("""fall/fell/a fall|drop/dropped/a drop|decline/declined/a decline
            |decrease/decreased/a decrease|go down/went down|shrink/shrank//gbl|slip/slipped
            |move lower/moved lower|deteriorate/deteriorated/a deterioration/g
            |narrow/narrowed/a narrowing/l"""),
        "flat": _verbs("""hold steady/held steady/no significant change
            |remain unchanged/remained unchanged/no change|stay flat/stayed flat/no real change
            |remain stable/remained stable|trade sideways/traded sideways//h"""),
    },
    "test": {
        "up": _verbs("""advance/advanced/an advance/gh|soar/soared|leap/leapt/a leap|surge/surged/a surge
            |pick up/picked up/a pickup/gh|spike/spiked/a spike/bh|mount/mounted//b|swell/swelled//bl
            |strengthen/strengthened/a strengthening/gh|deepen/deepened/a deepening/l|rally/rallied//h"""),
        "down": _verbs("""tumble/tumbled/a tumble|slide/slid/a slide|plunge/plunged/a plunge|sink/sank
            |dip/dipped/a dip|retreat/retreated/a retreat|ease/eased/an easing/blh|dwindle/dwindled//gbl
            |weaken/weakened/a weakening/gh|lessen/lessened/a lessening/l"""),
        "flat": _verbs("""finish level/finished level/no movement|stand still/stood still/a standstill
            |hardly budge/hardly budged/no shift|plateau/plateaued/a plateau
            |hover in place/hovered in place//h"""),
    },
}

# What a neutral sentence may say of a sum of money (of a good metric: a loss of some size is hardly neutral).
SUMS = {"train": Verb("amount to", "amounted to", "", ""), "test": Verb("total", "totalled", "", "")}

# ------------------------------------------------------------------------------------- mini_sentiment
# g good, b bad, l loss; $ = may carry amounts of money.
METRICS = {
    "train": _pool("""g$ net sales|g$ operating profit|g order intake|g gross margin
        |g$ cash flow from operations|g comparable sales|g$ rental income|g production volumes
        |g export deliveries|g$ net interest income|b$ operating costs|b$ net debt|b raw material costs
        |b$ impairment charges|b$ loan losses|b warranty claims|b$ overdue receivables|b product returns
        |l$ operating losses|l$ net losses"""),
    "test": _pool("""g$ turnover|g$ pretax earnings|g$ bookings|g profitability|g subscriber numbers
        |g$ fee revenue|g customer satisfaction|g$ dividend receipts|b$ expenses|b$ borrowings|b$ bad debts
        |b customer complaints|b fuel bills|b$ write-downs|b workplace accidents|l$ pretax deficits
        |l$ trading deficits"""),
}
GOOD = {s: {m.split(" ", 1)[1] for m in metrics if m[0] == "g"} for s, metrics in METRICS.items()}
PERIODS = {
    "train": _pool("""the first quarter|the second quarter|the third quarter|the fourth quarter
        |the past financial year|the latest reporting period"""),
    "test": _pool("""the first half|the second half|the last six months|the past twelve months
        |the spring season"""),
}
KINDS = {
    "train": _pool("""a toolmaker|an engineering company|a machinery maker|an equipment maker
        |a components supplier|a manufacturing company"""),
    "test": _pool("""a conglomerate|a diversified business|a family-run enterprise|an investment firm
        |a retail concern"""),
}
PHRASES = {
    "train": {
        "positive": _pool("""won an order worth {x} from a state railway
            |signed a profitable long-term contract with an airport operator
            |returned to profit after two difficult years|raised its earnings forecast for the full year
            |beat market expectations with its latest results|reported the best quarter in its history
            |proposed a higher dividend to its shareholders|gained new customers in every market
            |earned a quality award from its biggest buyer|repaid a loan of {x} ahead of schedule
            |opened a new plant in {town} to meet strong demand
            |hired {n} people to keep up with growing orders|benefited from brisk demand for its products
            |exceeded its annual savings target|finished the {town} project early and under budget
            |sold out its entire production for the coming year"""),
        "negative": _pool("""lost an order worth {x} to a rival
            |cancelled a long-term contract after a dispute with an airport operator
            |slipped to a loss after two good years|cut its earnings forecast for the full year
            |missed market expectations with its latest results|reported the worst quarter in its history
            |paid no dividend because its cash reserves were too low
            |disappointed customers in every market with late deliveries
            |paid a fine of {x} for false accounting|breached the terms of a loan of {x}
            |closed its plant in {town} after a drop in orders|dismissed {n} people because of weak demand
            |recalled {n} faulty units|fell far short of its annual savings target
            |delayed the {town} project because of technical problems
            |wrote off its entire investment in {town}"""),
        "neutral": _pool("""appointed a new head of communications|moved its head office to {town}
            |will publish its interim report on {day}|employs {n} people in {town}
            |has {n} sales offices, including one in {town}|changed the date of its annual general meeting
            |renewed the lease on its office in {town}|issued bonds of {x} that replace an older series
            |makes pumps and valves at a site in {town}|will hold a conference call for analysts at noon
            |chose a new auditor at its annual general meeting
            |registered {n} shares under its existing option plan|published a prospectus for a bond of {x}
            |renamed its unit in {town}|sells its products through {n} dealers
            |signed a credit agreement of {x} on the same terms as before"""),
    },
    "test": {
        "positive": _pool("""secured a deal worth {x} to equip a chain of hospitals
            |received a credit rating upgrade|resumed share buybacks thanks to healthy reserves
            |outperformed its competitors by a wide margin|lifted its guidance thanks to robust trading
            |overtook its main competitor to become the market leader
            |doubled staff bonuses after an outstanding summer|obtained approval for its most promising drug
            |broke its own output record at the {town} mill
            |cleared all its debts two years sooner than planned|scored a court victory that brings in {x}
            |created {n} jobs as business boomed"""),
        "negative": _pool("""forfeited a deal worth {x} after repeated mistakes
            |suffered a credit rating downgrade|suspended share buybacks to conserve its thin reserves
            |trailed its competitors by a wide margin|lowered its guidance owing to sluggish trading
            |surrendered its market lead to a cheaper competitor|scrapped staff bonuses after a dismal summer
            |failed to obtain approval for its most promising drug
            |halted output at the {town} mill following a fire|defaulted on a bond of {x}
            |owes {x} in damages over contaminated food|axed {n} jobs as business dried up"""),
        "neutral": _pool("""relocated its archive to {town}|named a successor to its retiring secretary
            |plans to release its annual accounts on {day}|runs {n} stores, most of them near {town}
            |has its headquarters in {town}|adopted a different logo and typeface
            |switched its share listing to another segment|swapped notes of {x} for paper with identical terms
            |supplies packaging to about {n} bakeries|invited shareholders to a meeting in {town}
            |counts {n} staff across all its sites|rescheduled its investor day to {month}"""),
    },
}
# {M}/{m} metric, {v} past verb, {inf} base, {n_} noun, {a} amount; 2 = the conceded clause; {V} key phrase.
SENTIMENT = {
    "train": _pool("""{co} said {m} {v} {a} in {per}.
        |{M} at {co} {v} {a} in {per}, according to the interim report.|In {per}, {m} at {co} {v} {a}.
        |{co}, {kind} based in {town}, said {m} {v} {a}.
        |The chief financial officer of {co} told analysts that {m} {v} {a}.
        |For {per}, {co} reported {n_} in {m}.|The largest division of {co} recorded {n_} in {m} during {per}.
        |{co} expects {m} to {inf} {a} next year.
        |According to a company presentation, {m} at {co} will {inf} {a} this year.
        |Although {m2} {v2}, {m} at {co} {v} {a} in {per}.|{M} {v} {a} at {co} even though {m2} {v2}.
        |Despite {n2} in {m2}, {co} said {m} {v} {a} in {per}.|While {m2} at {co} {v2} in {per}, {m} {v} {a}.
        |{co}, {kind} from {town}, {V}, according to a stock exchange release.
        |{Kind} {co} {V}, the company said in its interim report.
        |The board of {co} confirmed on {day} that the company {V}.
        |In a letter to shareholders, {co} said it {V}.
        |A spokesperson for {co} said on {day} that the company {V}.|{co} {V}, according to its latest report.
        |A press release from {town} says that {co} {V}.
        |As the local newspaper in {town} reported on {day}, {co} {V}.
        |{co}, which has been listed since {year}, {V}."""),
    "test": _pool("""A filing showed that {m} {v} {a} at {co} over {per}.
        |Figures released by {co} in {month} indicate that {m} {v} {a}.
        |{co} informed investors late on {day} that {m} {v} {a}.|Over {per}, {co} saw its {m} {inf} {a}.
        |{co}, {kind}, posted {n_} in {m} over {per}.|Though {m2} {v2}, {m} {v} {a} at {co} over {per}.
        |In spite of {n2} in {m2}, {m} {v} {a} at {co}.
        |Notwithstanding {n2} in {m2} over {per}, {co} states that its {m} {v} {a}.
        |It emerged on {day} that {co}, {kind}, {V}.
        |Shareholders of {co} learned in {month} that the firm {V}.
        |Minutes of the {month} meeting note that {co} {V}.
        |Founded in {year}, {co} {V}, the website of the firm reveals.
        |From {town} comes word that {co} {V}."""),
}
FOUNDED = {"train": (1905, 1989), "test": (1990, 2009)}

# ------------------------------------------------------------------------------------------- mini_ner
FIRST = {
    "train": _pool(
        """Ingrid Tomas Clara Hugo Petra Anders Marta Felix Nadia Oscar Helen Victor Lena Samuel
        Irene Paul Greta Martin Alma Jonas Edith Simon Vera Karl Rosa Daniel Ines Peter Sofia Lukas Judith
        Adam Carla Henrik""",
        None,
    ),
    "test": _pool(
        """Agnes Bruno Celia Dorian Elsa Frederick Gloria Harold Ivana Joseph Katrin Leonard Miriam
        Norbert Olga Philip Renata Stefan Tamara Ulrich Wanda Xavier""",
        None,
    ),
}
LAST = {
    "train": _pool(
        """Halvern Brackwell Tolmere Sandvold Quistrom Merrowby Aldecott Vantrell Kirsova Pendrake
        Lorrimay Oxhelm Stavrin Dunmarsh Fiorelle Garrowe Heskrith Ivarsund Jellicombe Kovarin Lindqvar
        Mostyrn Nuttergill Ottavane Prusholm Raskelle Sillitar Thornbeck Ungarelle Verstrand Wickstrow Yardlow
        Zandvell""",
        None,
    ),
    "test": _pool(
        """Ashgrave Bellweather Cordavan Drummel Estervall Fennimarch Gathercombe Holmgrave Ishkovar
        Jarramond Kestilan Lowendale Mirrabeck Nettlorne Orsavin Pettiforth Rullmann Swinstead Trelowen Uxmere
        Valtierre Whitmarrow""",
        None,
    ),
}
ROLES = {
    "train": _pool("""chief executive|finance director|chair of the audit committee|head of research
        |sales manager"""),
    "test": _pool("treasurer|chief economist|general counsel|deputy governor"),
}
OTHER_NAMES = {
    "train": _pool("Bank of {L}|{S} & Sons|{L} Shipping"),
    "test": _pool("{L} Savings Trust|{S} Brothers|{L} Insurance"),
}
# {P} person, {S} surname alone, {O} organisation, {B} its bare name, {L} place; the rest is no entity.
NER = {
    "train": _pool("""{P} joined {O} as {role} after nine years at {O}.|{B} opened an office in {L} on {day}.
        |{O} agreed to buy a plot of {n} hectares near {L}.|{P}, {role} of {O}, sold {n} shares in {month}.
        |Shares in {B} fell after {P} resigned as {role}.
        |The power plant in {L} employs {n} people and burns wood from {L}.
        |{P} told reporters in {L} that talks with {O} had ended.
        |{O} and {O} will build a warehouse between {L} and {L}.
        |According to {P}, the merger will cost {x} and take {n} days.
        |A court in {L} ordered {O} to repay {x}.|{O} named {P} {role}, replacing {P}.
        |Mr {S} of {O} declined to comment on the bid.
        |Before the crisis, {L} exported most of its {good} to {L}.
        |{O} borrowed {x} from {O} to finance a mine in {L}.
        |In {L}, {P} met the trade ministers of {L} and {L}.|{P} founded {O} in {L} with a loan of {x}.
        |Auditors from {O} found no errors in the {month} accounts of {B}.
        |The {role}, {P}, owns {pct} percent of the company.|Ships from {L} carry {good} for {O} every {day}.
        |Investors led by {O} asked {P} to step down.|{O} moved {n} jobs from {L} to {L} in {month}.
        |Lawyers for {P} said the claim by {O} had no merit.
        |Rail traffic between {L} and {L} was stopped for {n} minutes.
        |Heavy rain in {L} delayed deliveries of {good} to {O}, {P} said."""),
    "test": _pool("""{O} picked {P} to run its branch in {L}.
        |Speaking from {L}, {P} denied that {O} was for sale.
        |Fire at the {O} depot outside {L} destroyed {good} worth {x}.
        |{P} will chair {O} until a successor is found.
        |The takeover of {B} by {O} needs approval from lenders.
        |Farmers around {L} delivered {n} tonnes of grain through {O}.
        |Ms {S}, who grew up in {L}, has advised {O} since {month}.
        |Neither {P} nor {P} attended the hearing in {L}.|{O} ships {good} from {L} through {L} and {L}.
        |Creditors of {B} include {O} and {O}.|The ferry linking {L} with {L} sank in {month}.
        |Police questioned {P} about {x} missing from {O}.
        |On {day}, {P} of {O} received a contract worth {x} for the port of {L}.
        |Tourists spent {x} in {L} this {month}."""),
}
NER_NONE = {
    "train": _pool("""The {role} said the board would meet again on {day}.
        |Prices of {good} rose by {pct} percent in {month}.
        |About {n} workers returned to the factory on {day}.
        |The regulator fined a {good} trader {x} in {month}.
        |Under the new rules, banks must keep {pct} percent of deposits in cash.
        |No one was hurt when a {good} warehouse burned down on {day}.
        |Analysts had forecast a profit of {x} for the quarter."""),
    "test": _pool("""Dealers in {good} expect a quiet {day} before the holiday.
        |Most of the {n} passengers were asked to wait until {day}.
        |Inflation eased to {pct} percent, the lowest rate since {month}.
        |Neither the {role} nor the lenders wished to discuss the {x} shortfall."""),
}

# -------------------------------------------------------------------------------------- mini_headline
QUESTIONS = {
    "price_up": "Does the headline say that the price went up?",
    "price_down": "Does the headline say that the price went down?",
    "price_constant": "Does the headline say that the price stayed the same?",
    "past_price": "Does the headline say what the price has already done?",
    "future_price": "Does the headline say what the price may do in the future?",
}
WHEN = {
    "train": _pool("next week|next month|next year|by spring|tomorrow"),
    "test": _pool("before winter|over the coming months|later this decade|in the days ahead"),
}
# {G}/{g} prices of a good, {b} base verb, {p} past verb, {f} base verb of a forecast, {a} amount, {w} when.
HEADLINES = {
    "train": {
        "past": _pool("""{G} {b} {a} as traders return from holiday|{G} {p} {a} on {day}, exchange says
            |{G} {p} {a} last week, market data show|Market close: {g} {b} {a} on thin trading
            |{G} {b} {a} after central bank meeting|Dollar in focus as {g} {b} {a}
            |{G} {p} {a} in {month}, survey finds|Update: {g} {b} {a} in early trade"""),
        "future": _pool("""{G} may {f} {w}, analysts say|{G} expected to {f} {w}, according to brokers
            |{G} forecast to {f} {w}, poll shows|{G} could {f} {w} unless talks succeed
            |Bank sees good chance that {g} will {f} {w}|Traders bet that {g} will {f} {w}"""),
        "mix": _pool("""{G} {p} on {day} but may {f} {w}|{G} {p} {a}, but analysts expect them to {f} {w}
            |After they {p} last week, {g} could {f} {w}|{G} {b} {a} today, seen likely to {f} {w}"""),
        "other": _pool("""{C} exports {p} {q} in {month}, customs data show
            |{C} output {p} {q} last year, ministry reports|{C} demand expected to {f} {w}, producers say
            |{C} producers meet in {town} to discuss new quotas|{C} traders await new trade data on {day}
            |Exchange to launch new {c} contract in {month}
            |{C} workers in {town} end strike after {n} days"""),
    },
    "test": {
        "past": _pool("""{G} {b} {a} in quiet session despite holiday|Yesterday in brief: {g} {p} {a}
            |Weekly wrap: {g} {p} {a} since {day}|Hedge funds puzzled as {g} {b} {a}
            |Why {g} {p} {a} during the {month} floods"""),
        "future": _pool("""{G} predicted to {f} {w}, note suggests|Experts: {g} will probably {f} {w}
            |Outlook: {g} on course to {f} {w}|Strategists think {g} might {f} {w}"""),
        "mix": _pool("""{G} {p} {a} yesterday; experts believe they might {f} {w}
            |Since {day} {g} {p} {a}; experts see them {f} {w}
            |{G} {b} {a} this morning, yet strategists predict they {f} {w}"""),
        "other": _pool("""{C} shipments {p} {q} during {month}, port figures reveal
            |{C} consumption predicted to {f} {w}, study suggests
            |Government of {town} drafts stricter rules for {c} dealers
            |{C} inventories at main ports {p} {q}, officials estimate
            |New chair elected at {c} association in {town}"""),
    },
}

# ------------------------------------------------------------------------------------ mini_xbrl_value


class Concept(NamedTuple):
    name: str
    label: str
    be: str
    instant: bool
    share: float  # percent of the company's size
    signed: bool  # may be negative


def _concepts(table: str) -> list[Concept]:
    """Entries ``Element;label;was|were;i|d;percent`` with ``-`` after the percent if it may be negative."""
    rows = [entry.split(";") for entry in _pool(table)]
    return [Concept(n, la, be, k == "i", float(s.rstrip("-")), s.endswith("-")) for n, la, be, k, s in rows]


CONCEPTS = {
    "train": [
        _concepts("""Assets;total assets;were;i;100|AssetsCurrent;current assets;were;i;40
            |Liabilities;total liabilities;were;i;60|LiabilitiesCurrent;current liabilities;were;i;25
            |StockholdersEquity;stockholders' equity;was;i;35-"""),
        _concepts("""CashAndCashEquivalentsAtCarryingValue;cash and cash equivalents;were;i;10
            |InventoryNet;net inventory;was;i;9
            |AccountsReceivableNetCurrent;current accounts receivable;were;i;12
            |AccountsPayableCurrent;current accounts payable;were;i;8
            |PropertyPlantAndEquipmentNet;net property, plant and equipment;was;i;30"""),
        _concepts("""Revenues;total revenues;were;d;80|CostOfRevenue;cost of revenue;was;d;50
            |GrossProfit;gross profit;was;d;30|OperatingIncomeLoss;operating income or loss;was;d;12-
            |NetIncomeLoss;net income or loss;was;d;8-"""),
        _concepts("""ResearchAndDevelopmentExpense;research and development expense;was;d;6
            |SellingGeneralAndAdministrativeExpense;selling, general and administrative expense;was;d;14
            |InterestExpense;interest expense;was;d;2
            |IncomeTaxExpenseBenefit;income tax expense or benefit;was;d;3-
            |DepreciationDepletionAndAmortization;depreciation and amortization;was;d;5"""),
        _concepts("""NetCashProvidedByUsedInOperatingActivities;net cash from operating activities;was;d;11-
            |NetCashProvidedByUsedInInvestingActivities;net cash from investing activities;was;d;7-
            |NetCashProvidedByUsedInFinancingActivities;net cash from financing activities;was;d;6-
            |ProceedsFromIssuanceOfCommonStock;proceeds from issuing common stock;were;d;4
            |RepaymentsOfLongTermDebt;repayments of long-term debt;were;d;5"""),
    ],
    "test": [
        _concepts("""Goodwill;goodwill;was;i;15
            |IntangibleAssetsNetExcludingGoodwill;intangible assets other than goodwill;were;i;10
            |OtherAssetsNoncurrent;other noncurrent assets;were;i;5
            |DeferredIncomeTaxAssetsNet;deferred tax assets;were;i;3
            |LongTermInvestments;long-term investments;were;i;8"""),
        _concepts("""LongTermDebtNoncurrent;noncurrent long-term debt;was;i;22
            |ShortTermBorrowings;short-term borrowings;were;i;6
            |OperatingLeaseLiability;operating lease liability;was;i;4
            |TreasuryStockValue;treasury stock;was;i;7
            |RetainedEarningsAccumulatedDeficit;retained earnings or accumulated deficit;were;i;20-"""),
        _concepts("""PaymentsOfDividends;dividend payments;were;d;3
            |ShareBasedCompensation;share-based compensation;was;d;2
            |PaymentsToAcquirePropertyPlantAndEquipment;capital expenditure;was;d;6
            |OtherNonoperatingIncomeExpense;other nonoperating result;was;d;2-
            |AdvertisingExpense;advertising spending;was;d;4"""),
        _concepts("""ComprehensiveIncomeNetOfTax;comprehensive income or loss;was;d;9-
            |OtherComprehensiveIncomeLossNetOfTax;other comprehensive income or loss;was;d;2-
            |ForeignCurrencyTransactionGainLossBeforeTax;foreign currency gain or loss;was;d;1-
            |GainLossOnSaleOfBusiness;gain or loss on the sale of businesses;was;d;3-
            |GainLossOnSaleOfPropertyPlantEquipment;gain or loss on the sale of property;was;d;1-"""),
    ],
}
QUERIES = {
    "train": _pool("""What {be} the {l} of {co} {w}?|How large {be} the {l} of {co} {w}?
        |Which figure did {co} report for {l} {w}?|Find the {l} of {co} {w}.
        |State the {l} that {co} reported {w}.|{W}, what {be} the {l} of {co}?
        |What did {co} report as its {l} {w}?|What amount of {l} did {co} report {w}?
        |Give the value of {l} for {co} {w}.|What value do the facts of {co} show for {l} {w}?
        |Look up the {l} of {co} {w}.|For {co}, what {be} the {l} {w}?
        |What is the reported value of {l} {w} for {co}?|How many dollars of {l} did {co} report {w}?
        |Name the amount that {co} published as {l} {w}.|Read off the {l} of {co} {w}.
        |Can you tell what the {l} of {co} {be} {w}?|{W}, {co} had {l} of how many dollars?
        |Report the {l} of {co} {w}.|What value applies to the {l} of {co} {w}?"""),
    "test": _pool("""What did the {l} of {co} come to {w}?|Tell me the {l} of {co} {w}.
        |How big {be} the {l} at {co} {w}?|Which dollar sum belongs to the {l} of {co} {w}?
        |Extract the {l} disclosed by {co} {w}.|To what did the {l} of {co} amount {w}?
        |Quote the {l} stated by {co} {w}.|{W}, which total did {co} record for {l}?
        |According to its filing, how high {be} the {l} of {co} {w}?|Write down the {l} of {co} {w}.
        |Under {l}, what sum did {co} disclose {w}?"""),
}
FISCAL = {"train": (2010, 2017), "test": (2018, 2025)}
AS_OF = {
    "train": {
        True: _pool("at the end of fiscal year {y}|at the close of fiscal {y}|at fiscal year-end {y}"),
        False: _pool("in fiscal year {y}|for fiscal {y}|during fiscal year {y}"),
    },
    "test": {
        True: _pool("as of the end of FY{y}|when fiscal {y} ended"),
        False: _pool("over fiscal {y}|across the whole of FY{y}"),
    },
}


# --------------------------------------------------------------------------------------------- drawing
class Draw:
    """Seeded draws for one file, from ``random()`` alone: the same on every Python version."""

    def __init__(self, name: str, split: str) -> None:
        self.split = split
        self.random = random.Random(f"finbench {name} {split}").random

    def pick(self, pool: Sequence[T]) -> T:
        return pool[int(self.random() * len(pool))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def shuffled(self, items: Iterable[T]) -> list[T]:
        rest = list(items)
        return [rest.pop(int(self.random() * len(rest))) for _ in range(len(rest))]

    def number(self, low: float, high: float, decimals: int = 0) -> str:
        """A number between the bounds; a third of all numbers are kept for test."""
        for _ in range(1000):
            text = f"{low + (high - low) * self.random():.{decimals}f}"
            if (zlib.crc32(text.encode()) % 3 == 0) == (self.split == "test"):
                return text
        raise AssertionError(f"no {self.split} number between {low} and {high}")

    def money(self) -> str:
        return MONEY[self.split].format(self.number(2, 480, 1))

    def company(self) -> str:
        return f"{self.pick(STEMS[self.split])} {self.pick(SUFFIXES)}"

    def common(self) -> dict[str, str]:
        """The fillers that every kind of sentence may use."""
        s, kind = self.split, self.pick(KINDS[self.split])
        return {
            "co": self.company(), "kind": kind, "Kind": kind.split(" ", 1)[1].capitalize(),
            "town": self.pick(PLACES[s]), "day": self.pick(DAYS[s]), "month": self.pick(MONTHS[s]),
            "per": self.pick(PERIODS[s]), "year": str(self.pick(range(*FOUNDED[s]))), "x": self.money(),
            "n": self.number(11, 480), "pct": self.number(2, 15, 1), "good": self.pick(GOODS[s]),
            "role": self.pick(ROLES[s]),
        }  # fmt: skip


def _tidy(text: str) -> str:
    return re.sub(r" +([,;.])", r"\1", " ".join(text.split()))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fresh(seen: set[str], make: Callable[[], Row | None]) -> Row:
    """The first made row whose text is new."""
    for _ in range(10_000):
        row = make()
        if row is not None and row["text"] not in seen:
            seen.add(row["text"])
            return row
    raise AssertionError("the tables are too small for this many rows")


# ------------------------------------------------------------------------------------------ row makers
def _move(draw: Draw, polarity: str, noun: bool, avoid: str = "") -> tuple[str, bool, str, Verb]:
    """(metric, carries money, direction, verb): up is positive for a good metric, negative for a bad one."""
    good = draw.chance(0.6)
    direction = "flat" if polarity == "neutral" else "up" if (polarity == "positive") == good else "down"
    metrics = [m.split(" ", 1) for m in METRICS[draw.split] if (m[0] == "g") == good]
    flags, metric = draw.pick([(f, m) for f, m in metrics if m.split()[-1] not in avoid.split()])
    verbs = VERBS[draw.split][direction]
    verb = draw.pick([v for v in verbs if flags[0] in v.scope and (v.noun or not noun)])
    return metric, "$" in flags, direction, verb


def _amount(draw: Draw, money: bool, direction: str) -> str:
    if draw.chance(0.3) or (direction == "flat" and not money):
        return ""
    if direction == "flat":
        return f"at {draw.money()}"
    if money and draw.chance(0.5):
        old = float(draw.number(10, 300, 1))
        low, high = (1.04, 1.3) if direction == "up" else (0.7, 0.96)
        new = draw.number(old * low, old * high, 1)
        return f"to {MONEY[draw.split].format(new)} from {MONEY[draw.split].format(f'{old:.1f}')}"
    return f"by {draw.number(4, 15, 1)}{PERCENT[draw.split]}"


def _sentiment(draw: Draw, label: str) -> Row:
    s, template, fill = draw.split, draw.pick(SENTIMENT[draw.split]), draw.common()
    fill["V"] = draw.pick(PHRASES[s][label]).format(**fill | {"town": draw.pick(PLACES[s])})
    metric, money, direction, verb = _move(draw, label, "{n_}" in template)
    amount = _amount(draw, money, direction)
    plain = money and not re.search(r"\{n_|2\}", template)
    if direction == "flat" and plain and metric in GOOD[s] and draw.chance(0.5):
        amount = draw.money()
        verb = SUMS[s]
    share = f" of {draw.number(4, 15, 1)}{PERCENT[s]}" if direction != "flat" and draw.chance(0.6) else ""
    other = draw.pick([x for x in ("negative", "positive") if x != label])  # of the conceded clause
    metric2, _, _, verb2 = _move(draw, other, "{n2}" in template, avoid=metric)
    fill |= {"m": metric, "M": _capital(metric), "v": verb.past, "inf": verb.base, "a": amount,
             "n_": verb.noun + share, "m2": metric2, "v2": verb2.past, "n2": verb2.noun}  # fmt: skip
    return {"text": _tidy(_capital(template.format(**fill))), "label": label}


def sentiment_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    labels = [("negative", "neutral", "positive")[i % 3] for i in range(count)]
    return [_fresh(seen, partial(_sentiment, draw, label)) for label in labels]


def _name(draw: Draw, slot: str) -> tuple[str, str]:
    """(name, entity type) for a slot of an NER template."""
    s = draw.split
    if slot == "L":
        return draw.pick(PLACES[s]), "location"
    if slot == "S":
        return draw.pick(LAST[s]), "person"
    if slot == "P":
        return f"{draw.pick(FIRST[s])} {draw.pick(LAST[s])}", "person"
    if slot == "B":
        return draw.pick(STEMS[s]), "organization"
    if draw.chance(0.6):
        return draw.company(), "organization"
    return draw.pick(OTHER_NAMES[s]).format(L=draw.pick(PLACES[s]), S=draw.pick(LAST[s])), "organization"


def _ner(draw: Draw, templates: list[str]) -> Row | None:
    text, entities, fill = "", [], draw.common()
    for i, piece in enumerate(re.split(r"\{(\w+)\}", draw.pick(templates))):
        if i % 2 and len(piece) == 1 and piece in "PSOBL":
            name, kind = _name(draw, piece)
            entities.append({"text": name, "type": kind})
            text += name
        else:
            text += fill[piece] if i % 2 else piece
    if any(text.count(entity["text"]) != 1 for entity in entities):
        return None
    return {"text": text, "entities": entities}


def ner_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    tables = [NER_NONE[draw.split] if i % 10 == 0 else NER[draw.split] for i in range(count)]
    return [_fresh(seen, partial(_ner, draw, table)) for table in tables]


DIRECTIONS = {"up": "price_up", "down": "price_down", "flat": "price_constant"}
# (shape, what has happened, what is forecast), repeated by weight.
HEADLINE_KINDS = [("past", d, "") for d in DIRECTIONS] * 4 + [("future", "", d) for d in DIRECTIONS] * 2
HEADLINE_KINDS += [("mix", p, f) for p in DIRECTIONS for f in DIRECTIONS if p != f] + [("other", "", "")] * 3


def _truth(kind: tuple[str, str, str]) -> set[str]:
    """The questions to answer with Yes."""
    past = {DIRECTIONS[kind[1]], "past_price"} if kind[1] else set()
    return past | ({"future_price"} if kind[2] else set())


def _headline(draw: Draw, attribute: str, label: str) -> Row | None:
    s = draw.split
    kind = draw.pick([k for k in HEADLINE_KINDS if (attribute in _truth(k)) == (label == "Yes")])
    past, future = kind[1] or draw.pick(list(DIRECTIONS)), kind[2] or draw.pick(list(DIRECTIONS))
    scope = set("hb" if kind[0] == "other" else "h")  # fewer verbs fit exports and demand than prices
    verb, forecast = (draw.pick([v for v in VERBS[s][d] if scope <= set(v.scope)]) for d in (past, future))
    fill = draw.common()
    prices = f"{fill['good']} {draw.pick(['prices', 'prices', 'futures'])}"
    if draw.chance(0.2):
        prices = f"{draw.pick(STEMS[s])} shares"
    price, share = f"${draw.number(30, 990)}", f"{draw.number(2.5, 11.8, 1)}%"
    amount = draw.pick(["", f"at {price}"] if past == "flat" else ["", f"to {price}", share, share])
    fill |= {"G": _capital(prices), "g": prices, "C": _capital(fill["good"]), "c": fill["good"],
             "b": verb.base, "p": verb.past, "f": forecast.base, "a": amount, "w": draw.pick(WHEN[s]),
             "q": "" if past == "flat" else share}  # fmt: skip
    text = _tidy(draw.pick(HEADLINES[s][kind[0]]).format(**fill))
    if not 6 <= len(text.split()) <= 14:
        return None
    return {"text": text, "attribute": attribute, "question": QUESTIONS[attribute], "label": label}


def headline_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    attributes = list(QUESTIONS)
    plan = [(attributes[i % 5], "Yes" if i // 5 % 5 in (1, 3) else "No") for i in range(count)]
    return [_fresh(seen, partial(_headline, draw, a, label)) for a, label in plan]


def _value(draw: Draw, concept: Concept, size: float) -> str:
    """A value of fitting size, given in dollars, thousands or millions."""
    value = size * concept.share / 100
    unit = draw.pick([u for u in (1, 1000, 1000, 1_000_000) if value >= 100 * u] or [1])
    digits = draw.number(value / unit * 0.7, value / unit * 1.3)
    return ("-" if concept.signed and draw.chance(0.35) else "") + digits + str(unit)[1:]


def _xbrl(draw: Draw) -> Row | None:
    s, company, group = draw.split, draw.company(), draw.shuffled(draw.pick(CONCEPTS[draw.split]))
    concept, years = group[0], draw.shuffled([0, 1])
    start = draw.pick(range(*FISCAL[s]))
    size = (1 + 9 * draw.random()) * draw.pick([10**6, 10**7, 10**8, 10**9, 10**10])
    here, there = f"FY{start + years[0]}", f"FY{start + years[1]}"
    keys = [(concept, here), (group[1], here)] + ([(concept, there)] if draw.chance(0.85) else [])
    rest = [(c, p) for c in group[1:] for p in (here, there) if (c, p) != (group[1], here)]
    keys += draw.shuffled(rest)[: draw.pick([4, 5, 5, 6, 7]) - len(keys)]
    facts = {key: _value(draw, key[0], size) for key in keys}
    if len({value.lstrip("-") for value in facts.values()}) < len(facts):
        return None
    lines = [f"us-gaap:{c.name} {period} {value} USD" for (c, period), value in draw.shuffled(facts.items())]
    when = draw.pick(AS_OF[s][concept.instant]).format(y=here[2:])
    slots = {"be": concept.be, "l": concept.label, "co": company, "w": when, "W": _capital(when)}
    return {"company": company, "text": "\n".join(lines), "question": draw.pick(QUERIES[s]).format(**slots),
            "concept": f"us-gaap:{concept.name}", "period": here, "answer": facts[concept, here]}  # fmt: skip


def xbrl_rows(draw: Draw, count: int) -> list[Row]:
    seen: set[str] = set()
    return [_fresh(seen, partial(_xbrl, draw)) for _ in range(count)]


# --------------------------------------------------------------------------------------------- checks
def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _apart(what: str, train: Iterable[str], test: Iterable[str]) -> None:
    _require(not (both := set(train) & set(test)), f"{what} in both splits: {sorted(both)}")


def _verb_words(split: str) -> set[str]:
    phrases = [f"{v.base} {v.past}" for verbs in VERBS[split].values() for v in verbs]
    return {word for word in " ".join(phrases).split() if len(word) > 3 or word in ("rise", "fell", "slid")}


def check_pools() -> None:
    """The tables of train and test share nothing that they must not share."""
    pools = (STEMS, GOODS, DAYS, MONTHS, METRICS, PERIODS, KINDS, ROLES, WHEN)
    for pool in (*pools, OTHER_NAMES, SENTIMENT, NER, NER_NONE, QUERIES):
        _apart("entry", pool["train"], pool["test"])
        _require(all(len(set(pool[s])) == len(pool[s]) for s in ROWS), "a table repeats an entry")
    names = {s: " ".join(STEMS[s] + PLACES[s] + FIRST[s] + LAST[s]).split() for s in ROWS}
    _apart("name", names["train"], names["test"])
    for label, phrases in PHRASES["train"].items():
        _apart("key phrase", phrases, PHRASES["test"][label])
    for shape, templates in HEADLINES["train"].items():
        _apart("headline shape", templates, HEADLINES["test"][shape])
    _apart("verb", _verb_words("train"), _verb_words("test"))
    _apart("element", *({c.name for group in CONCEPTS[s] for c in group} for s in ROWS))


def check_rows(name: str, rows: dict[str, list[Row]]) -> None:
    """Counts, balance, spans and what the finished texts of train and test share."""
    texts = {s: [f"{r['text']} {r.get('question', '')}" for r in rows[s]] for s in ROWS}
    _require(all(len(rows[s]) == ROWS[s] for s in ROWS), f"{name}: wrong number of rows")
    every = [row["text"] for s in ROWS for row in rows[s]]
    _require(len(set(every)) == len(every), f"{name}: a text occurs twice")
    _require(not any(re.search(r"[{}]|  | [,.]", text) for text in every), f"{name}: unfilled or untidy text")
    _apart(f"{name}: number", *(re.findall(r"\d(?:[\d,.]*\d)?", " ".join(texts[s])) for s in ROWS))
    _apart(f"{name}: company", STEMS["train"], re.findall(r"\w+", " ".join(texts["test"])))
    for s in ROWS:
        for row in rows[s]:
            found = row.get("entities", [])
            _require(len(found) <= 4, f"{name}: too many entities in {row['text']}")
            _require(all(row["text"].count(e["text"]) == 1 for e in found), f"{name}: span in {row['text']}")
            order = [row["text"].find(e["text"]) for e in found]
            _require(order == sorted(order), f"{name}: entity order in {row['text']}")
            if name == "mini_xbrl_value":
                fact = f"{row['concept']} {row['period']} {row['answer']} USD"
                lines = row["text"].split("\n")
                _require(lines.count(fact) == 1 and 4 <= len(lines) <= 7, f"{name}: {row}")
        labels = Counter((r.get("attribute", ""), r.get("label", "")) for r in rows[s])
        if name == "mini_sentiment":
            _require(set(labels.values()) == {ROWS[s] // 3}, f"{name}: {labels}")
        if name == "mini_headline":
            _require(set(labels.values()) == {ROWS[s] * 2 // 25, ROWS[s] * 3 // 25}, f"{name}: {labels}")
        if name == "mini_ner":
            _require(sum(not r["entities"] for r in rows[s]) == ROWS[s] // 10, f"{name}: too few entities")
    if name in ("mini_sentiment", "mini_headline"):
        words = re.findall(r"\w+", " ".join(row["text"] for row in rows["test"]).lower())
        _apart(f"{name}: verb", _verb_words("train"), words)


MAKERS = {
    "mini_sentiment": sentiment_rows,
    "mini_ner": ner_rows,
    "mini_headline": headline_rows,
    "mini_xbrl_value": xbrl_rows,
}


def files() -> dict[str, bytes]:
    """File name to content, for all eight files."""
    check_pools()
    out = {}
    for name, make in MAKERS.items():
        rows = {}
        for split, count in ROWS.items():
            draw = Draw(name, split)
            shuffled = draw.shuffled(make(draw, count))
            rows[split] = [{"id": f"{name}-{split}-{i:04d}", **row} for i, row in enumerate(shuffled, 1)]
        check_rows(name, rows)
        for split in ROWS:
            lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows[split]]
            out[f"{name}.{split}.jsonl"] = ("\n".join(lines) + "\n").encode()
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the four mini data sets.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk, write nothing")
    check = parser.parse_args().check
    status = 0
    for name, content in files().items():
        path = HERE / name
        if not check:
            path.write_bytes(content)
        elif not path.is_file() or path.read_bytes() != content:
            print(f"{path} differs from what {pathlib.Path(__file__).name} writes", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
