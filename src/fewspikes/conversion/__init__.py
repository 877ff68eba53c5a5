"""The verb convert: which code each site gets, repairs, budgets, distilling."""
