"""The report: one HTML file that shows how good labels are."""
