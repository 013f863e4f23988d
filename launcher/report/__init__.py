"""What a person reads afterwards: leaderboards, the receipt, report.html."""
