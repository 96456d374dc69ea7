"""Other people's libraries, each in a module of its own and imported only when it is used."""
