"""Its formula is in `test_transcriptions`, its two-cycle in the laboratory."""
