"""From pictures, folders and videos to landmarks in them."""
