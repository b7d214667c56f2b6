"""The classroom: what lessons begin with, the controls that they move figures by, and what checks them."""
