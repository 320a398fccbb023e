"""The words of the mini data sets, each pool apart for train and test, and how they are written."""

from __future__ import annotations

from typing import NamedTuple


def pool(table: str, sep: str | None = "|") -> list[str]:
    """The entries of a table, separated by ``sep`` (None: by blanks)."""
    return [" ".join(entry.split()) for entry in table.split(sep)]


STEMS = {
    "train": pool(
        """Orvane Quellmar Brastow Tindrel Velmoor Karsund Pellwick Drenholm Sarvund Lundrow
        Marquell Fennaby Ostvale Brinmoor Callthorn Delvany Eskerow Farnwyke Gorsmere Hathvale Ilvarra
        Jarnholt Kestrow Lormund Mirrowen Nordquell Olvanta Prestwane Quarrow Rivaunt Sondmere Tarvane Umbrast
        Vastholm Wexmoor Yarrowin Zendrick Ashvorne Belquorn Corvell Dasholm Elmquay Fjalvane Grendale Hexmoor
        Irvanta Jolquist Kelbrane Lanthorpe Mossvane Nyvarra Osterlow Pyrwick Quinthrel Rosvane Skarholt
        Thorvund Ulvanne Varquist Wolmarsh Yelvane Zorrick Abrenna Bosvarn Cindral Dorvik""",
        None,
    ),
    "test": pool(
        """Aldermoss Bexholm Calvarne Drosmere Elvestra Frostane Galdwin Hollandry Imberlow Jostrand
        Kilvarra Larkmoss Mendrake Norvelle Obrenn Palvarro Quenlow Rastmere Solvaney Trevanth Ulmgarth
        Vorlane Westrill Xandrel Yorvath Zelmount Arkhollow Brelvane Cundrel Dalvorne Ethmoor Furwick Gansmere
        Helvrick""",
        None,
    ),
}
SUFFIXES = pool("Group|Group|Holdings|plc|plc|Inc|Industries|Partners|Corporation")
PLACES = {
    "train": pool("""Port Merrin|Kelsund|Tarrow Bay|North Orrin|Vasterby|Lindmouth|Varnia|Corrobay|Eastmarch
        |Halbrook|Jutvik|Marrowfield|Oskerra|Pellamy|Rivermoor|Sallowford|Tessamo|Ulvanger|Wynmouth|Zarvo
        |Beldon Hills|Crestavia|Dunmarra|Elsmark|Fenwater|Graustadt|Hollin Bridge|Istraval|Kaldemar|Lomvia
        |Nethergarth|Old Quay|Pinemark|Quarnby|Saint Orla|Tollburg"""),
    "test": pool("""Cape Ellory|Fort Hask|Lake Dunnow|Morvania|Astelburg|Birchaven|Copperhollow|Dravino
        |Emberfield|Glasmere|Hythewick|Iskavar|Juneport|Kirrawell|Lowfern|Mount Tavry|Oldenshaw|Pelorra
        |Rookhaven|Sundray|Thistledown|Wadebury"""),
}
GOODS = {
    "train": pool("""copper|wheat|cocoa|nickel|coffee|cotton|crude oil|rubber|zinc|sugar|barley|steel|tea
        |wool|cobalt"""),
    "test": pool("""aluminium|corn|silver|lumber|palm oil|natural gas|rapeseed|platinum|rice|orange juice
        |pork"""),
}
DAYS = {"train": pool("Monday|Wednesday|Thursday"), "test": pool("Tuesday|Friday")}
MONTHS = {
    "train": pool("January|March|April|June|September|October|November"),
    "test": pool("February|May|August|December"),
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
    parts = [[*entry.split("/"), "", ""][:4] for entry in pool(table)]
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
# g good, b bad, l loss; $ = may carry amounts of money.
METRICS = {
    "train": pool("""g$ net sales|g$ operating profit|g order intake|g gross margin
        |g$ cash flow from operations|g comparable sales|g$ rental income|g production volumes
        |g export deliveries|g$ net interest income|b$ operating costs|b$ net debt|b raw material costs
        |b$ impairment charges|b$ loan losses|b warranty claims|b$ overdue receivables|b product returns
        |l$ operating losses|l$ net losses"""),
    "test": pool("""g$ turnover|g$ pretax earnings|g$ bookings|g profitability|g subscriber numbers
        |g$ fee revenue|g customer satisfaction|g$ dividend receipts|b$ expenses|b$ borrowings|b$ bad debts
        |b customer complaints|b fuel bills|b$ write-downs|b workplace accidents|l$ pretax deficits
        |l$ trading deficits"""),
}
GOOD = {s: {m.split(" ", 1)[1] for m in metrics if m[0] == "g"} for s, metrics in METRICS.items()}
PERIODS = {
    "train": pool("""the first quarter|the second quarter|the third quarter|the fourth quarter
        |the past financial year|the latest reporting period"""),
    "test": pool("""the first half|the second half|the last six months|the past twelve months
        |the spring season"""),
}
KINDS = {
    "train": pool("""a toolmaker|an engineering company|a machinery maker|an equipment maker
        |a components supplier|a manufacturing company"""),
    "test": pool("""a conglomerate|a diversified business|a family-run enterprise|an investment firm
        |a retail concern"""),
}
PHRASES = {
    "train": {
        "positive": pool("""won an order worth {x} from a state railway
            |signed a profitable long-term contract with an airport operator
            |returned to profit after two difficult years|raised its earnings forecast for the full year
            |beat market expectations with its latest results|reported the best quarter in its history
            |proposed a higher dividend to its shareholders|gained new customers in every market
            |earned a quality award from its biggest buyer|repaid a loan of {x} ahead of schedule
            |opened a new plant in {town} to meet strong demand
            |hired {n} people to keep up with growing orders|benefited from brisk demand for its products
            |exceeded its annual savings target|finished the {town} project early and under budget
            |sold out its entire production for the coming year"""),
        "negative": pool("""lost an order worth {x} to a rival
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
        "neutral": pool("""appointed a new head of communications|moved its head office to {town}
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
        "positive": pool("""secured a deal worth {x} to equip a chain of hospitals
            |received a credit rating upgrade|resumed share buybacks thanks to healthy reserves
            |outperformed its competitors by a wide margin|lifted its guidance thanks to robust trading
            |overtook its main competitor to become the market leader
            |doubled staff bonuses after an outstanding summer|obtained approval for its most promising drug
            |broke its own output record at the {town} mill
            |cleared all its debts two years sooner than planned|scored a court victory that brings in {x}
            |created {n} jobs as business boomed"""),
        "negative": pool("""forfeited a deal worth {x} after repeated mistakes
            |suffered a credit rating downgrade|suspended share buybacks to conserve its thin reserves
            |trailed its competitors by a wide margin|lowered its guidance owing to sluggish trading
            |surrendered its market lead to a cheaper competitor|scrapped staff bonuses after a dismal summer
            |failed to obtain approval for its most promising drug
            |halted output at the {town} mill following a fire|defaulted on a bond of {x}
            |owes {x} in damages over contaminated food|axed {n} jobs as business dried up"""),
        "neutral": pool("""relocated its archive to {town}|named a successor to its retiring secretary
            |plans to release its annual accounts on {day}|runs {n} stores, most of them near {town}
            |has its headquarters in {town}|adopted a different logo and typeface
            |switched its share listing to another segment|swapped notes of {x} for paper with identical terms
            |supplies packaging to about {n} bakeries|invited shareholders to a meeting in {town}
            |counts {n} staff across all its sites|rescheduled its investor day to {month}"""),
    },
}
FOUNDED = {"train": (1905, 1989), "test": (1990, 2009)}
FIRST = {
    "train": pool(
        """Ingrid Tomas Clara Hugo Petra Anders Marta Felix Nadia Oscar Helen Victor Lena Samuel
        Irene Paul Greta Martin Alma Jonas Edith Simon Vera Karl Rosa Daniel Ines Peter Sofia Lukas Judith
        Adam Carla Henrik""",
        None,
    ),
    "test": pool(
        """Agnes Bruno Celia Dorian Elsa Frederick Gloria Harold Ivana Joseph Katrin Leonard Miriam
        Norbert Olga Philip Renata Stefan Tamara Ulrich Wanda Xavier""",
        None,
    ),
}
LAST = {
    "train": pool(
        """Halvern Brackwell Tolmere Sandvold Quistrom Merrowby Aldecott Vantrell Kirsova Pendrake
        Lorrimay Oxhelm Stavrin Dunmarsh Fiorelle Garrowe Heskrith Ivarsund Jellicombe Kovarin Lindqvar
        Mostyrn Nuttergill Ottavane Prusholm Raskelle Sillitar Thornbeck Ungarelle Verstrand Wickstrow Yardlow
        Zandvell""",
        None,
    ),
    "test": pool(
        """Ashgrave Bellweather Cordavan Drummel Estervall Fennimarch Gathercombe Holmgrave Ishkovar
        Jarramond Kestilan Lowendale Mirrabeck Nettlorne Orsavin Pettiforth Rullmann Swinstead Trelowen Uxmere
        Valtierre Whitmarrow""",
        None,
    ),
}
ROLES = {
    "train": pool("""chief executive|finance director|chair of the audit committee|head of research
        |sales manager"""),
    "test": pool("treasurer|chief economist|general counsel|deputy governor"),
}
OTHER_NAMES = {
    "train": pool("Bank of {L}|{S} & Sons|{L} Shipping"),
    "test": pool("{L} Savings Trust|{S} Brothers|{L} Insurance"),
}


class Concept(NamedTuple):
    name: str
    label: str
    be: str
    instant: bool
    share: float  # percent of the company's size
    signed: bool  # may be negative


def _concepts(table: str) -> list[Concept]:
    """Entries ``Element;label;was|were;i|d;percent`` with ``-`` after the percent if it may be negative."""
    rows = [entry.split(";") for entry in pool(table)]
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
FISCAL = {"train": (2010, 2017), "test": (2018, 2025)}
