"""Publishing: what a folder becomes on the Hub. ``push`` finds out what it is, plans, and executes the plan.

``adapter`` and ``evidence`` choose the files of adapters, models, scorecards, data and tasks; ``modelcard`` writes the
README, ``picture`` its plot, ``licences`` the licence.
"""
