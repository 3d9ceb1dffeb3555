"""Tips proven on the seller's own photo: what a phone could mend is tried, and told only if the score rises.

measures  what is off in a photo, in numbers
edits     the fixes: each mends one flaw, and leaves a photo without it alone
advise    tries all of them at Triton, and ranks what helps
picture   before and after, side by side
"""
