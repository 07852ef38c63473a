"""Models with an uncertainty that are fitted to a campaign's own results; they know no campaign."""
