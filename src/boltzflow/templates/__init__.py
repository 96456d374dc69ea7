"""The look of the HTML report: `page.py` builds the pieces, `report.css` dresses them."""
