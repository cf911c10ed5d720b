"""How good scores are: AUC, both AUPR, their variance, intervals, paired tests."""
