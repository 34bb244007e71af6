"""A week of ordinary traffic: users, their devices and a web application, over a real authority in virtual time."""
