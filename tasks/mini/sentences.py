"""The sentences of the mini data sets: templates that ``generate.py`` fills, each pool apart for train and test."""

from __future__ import annotations

from words import pool

# {M}/{m} metric, {v} past verb, {inf} base, {n_} noun, {a} amount; 2 = the conceded clause; {V} key phrase.
SENTIMENT = {
    "train": pool("""{co} said {m} {v} {a} in {per}.
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
    "test": pool("""A filing showed that {m} {v} {a} at {co} over {per}.
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
# {P} person, {S} surname alone, {O} organisation, {B} its bare name, {L} place; the rest is no entity.
NER = {
    "train": pool("""{P} joined {O} as {role} after nine years at {O}.|{B} opened an office in {L} on {day}.
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
    "test": pool("""{O} picked {P} to run its branch in {L}.
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
    "train": pool("""The {role} said the board would meet again on {day}.
        |Prices of {good} rose by {pct} percent in {month}.
        |About {n} workers returned to the factory on {day}.
        |The regulator fined a {good} trader {x} in {month}.
        |Under the new rules, banks must keep {pct} percent of deposits in cash.
        |No one was hurt when a {good} warehouse burned down on {day}.
        |Analysts had forecast a profit of {x} for the quarter."""),
    "test": pool("""Dealers in {good} expect a quiet {day} before the holiday.
        |Most of the {n} passengers were asked to wait until {day}.
        |Inflation eased to {pct} percent, the lowest rate since {month}.
        |Neither the {role} nor the lenders wished to discuss the {x} shortfall."""),
}
QUESTIONS = {
    "price_up": "Does the headline say that the price went up?",
    "price_down": "Does the headline say that the price went down?",
    "price_constant": "Does the headline say that the price stayed the same?",
    "past_price": "Does the headline say what the price has already done?",
    "future_price": "Does the headline say what the price may do in the future?",
}
WHEN = {
    "train": pool("next week|next month|next year|by spring|tomorrow"),
    "test": pool("before winter|over the coming months|later this decade|in the days ahead"),
}
# {G}/{g} prices of a good, {b} base verb, {p} past verb, {f} base verb of a forecast, {a} amount, {w} when.
HEADLINES = {
    "train": {
        "past": pool("""{G} {b} {a} as traders return from holiday|{G} {p} {a} on {day}, exchange says
            |{G} {p} {a} last week, market data show|Market close: {g} {b} {a} on thin trading
            |{G} {b} {a} after central bank meeting|Dollar in focus as {g} {b} {a}
            |{G} {p} {a} in {month}, survey finds|Update: {g} {b} {a} in early trade"""),
        "future": pool("""{G} may {f} {w}, analysts say|{G} expected to {f} {w}, according to brokers
            |{G} forecast to {f} {w}, poll shows|{G} could {f} {w} unless talks succeed
            |Bank sees good chance that {g} will {f} {w}|Traders bet that {g} will {f} {w}"""),
        "mix": pool("""{G} {p} on {day} but may {f} {w}|{G} {p} {a}, but analysts expect them to {f} {w}
            |After they {p} last week, {g} could {f} {w}|{G} {b} {a} today, seen likely to {f} {w}"""),
        "other": pool("""{C} exports {p} {q} in {month}, customs data show
            |{C} output {p} {q} last year, ministry reports|{C} demand expected to {f} {w}, producers say
            |{C} producers meet in {town} to discuss new quotas|{C} traders await new trade data on {day}
            |Exchange to launch new {c} contract in {month}
            |{C} workers in {town} end strike after {n} days"""),
    },
    "test": {
        "past": pool("""{G} {b} {a} in quiet session despite holiday|Yesterday in brief: {g} {p} {a}
            |Weekly wrap: {g} {p} {a} since {day}|Hedge funds puzzled as {g} {b} {a}
            |Why {g} {p} {a} during the {month} floods"""),
        "future": pool("""{G} predicted to {f} {w}, note suggests|Experts: {g} will probably {f} {w}
            |Outlook: {g} on course to {f} {w}|Strategists think {g} might {f} {w}"""),
        "mix": pool("""{G} {p} {a} yesterday; experts believe they might {f} {w}
            |Since {day} {g} {p} {a}; experts see them {f} {w}
            |{G} {b} {a} this morning, yet strategists predict they {f} {w}"""),
        "other": pool("""{C} shipments {p} {q} during {month}, port figures reveal
            |{C} consumption predicted to {f} {w}, study suggests
            |Government of {town} drafts stricter rules for {c} dealers
            |{C} inventories at main ports {p} {q}, officials estimate
            |New chair elected at {c} association in {town}"""),
    },
}
QUERIES = {
    "train": pool("""What {be} the {l} of {co} {w}?|How large {be} the {l} of {co} {w}?
        |Which figure did {co} report for {l} {w}?|Find the {l} of {co} {w}.
        |State the {l} that {co} reported {w}.|{W}, what {be} the {l} of {co}?
        |What did {co} report as its {l} {w}?|What amount of {l} did {co} report {w}?
        |Give the value of {l} for {co} {w}.|What value do the facts of {co} show for {l} {w}?
        |Look up the {l} of {co} {w}.|For {co}, what {be} the {l} {w}?
        |What is the reported value of {l} {w} for {co}?|How many dollars of {l} did {co} report {w}?
        |Name the amount that {co} published as {l} {w}.|Read off the {l} of {co} {w}.
        |Can you tell what the {l} of {co} {be} {w}?|{W}, {co} had {l} of how many dollars?
        |Report the {l} of {co} {w}.|What value applies to the {l} of {co} {w}?"""),
    "test": pool("""What did the {l} of {co} come to {w}?|Tell me the {l} of {co} {w}.
        |How big {be} the {l} at {co} {w}?|Which dollar sum belongs to the {l} of {co} {w}?
        |Extract the {l} disclosed by {co} {w}.|To what did the {l} of {co} amount {w}?
        |Quote the {l} stated by {co} {w}.|{W}, which total did {co} record for {l}?
        |According to its filing, how high {be} the {l} of {co} {w}?|Write down the {l} of {co} {w}.
        |Under {l}, what sum did {co} disclose {w}?"""),
}
AS_OF = {
    "train": {
        True: pool("at the end of fiscal year {y}|at the close of fiscal {y}|at fiscal year-end {y}"),
        False: pool("in fiscal year {y}|for fiscal {y}|during fiscal year {y}"),
    },
    "test": {
        True: pool("as of the end of FY{y}|when fiscal {y} ended"),
        False: pool("over fiscal {y}|across the whole of FY{y}"),
    },
}
