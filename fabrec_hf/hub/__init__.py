"""Publishing on the Hub: what goes there, the cards, and the push."""
