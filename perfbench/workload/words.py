"""Ordinary English words that synthetic prompts are made of: no real data, and in most vocabularies one token each after a space."""

from __future__ import annotations

_LIST = """
able about above across after again air all almost along also always among and animal answer any apple area arm around art ask away baby back ball
bank base bear beat bed before begin behind best big bird black blue boat body book both box boy bread bring brother brown build burn business busy
buy call came can car care carry case cat cause center chair chance change city class clean clear close cloth cloud cold color come common cook
cool copy corn corner cost count country course cover cross cry cut dance dark day deep design dinner direct dog door down draw dream dress drink
drive drop dry each ear early earth east easy eat edge egg eight end enough even evening every eye face fact fall family far farm fast father feel
feet few field fight figure fill find fine finger fire first fish five flat floor flow flower fly follow food foot forest form four free fresh
friend front fruit full game garden gave get girl give glass gold good grass gray great green ground group grow hair half hand happy hard hat have
head hear heart heat heavy help here high hill hold home horse hot hour house hundred ice idea inch iron island job join jump keep key kind king
kitchen know land language large last late laugh lead leaf learn leave left leg letter level life light line list little live long look lot love low
machine make man map mark market matter may mean meat meet metal middle milk mind minute money month moon more morning most mother mountain mouth
move music name nature near neck need never new next night nine noise north nose note number ocean offer office often oil old once one open orange
order other own page paint paper park part party pass past path pay people person phone picture piece place plain plan plane plant play point poor
power press pretty pull push put question quick quiet rain ran reach read ready red rest rice rich ride right ring rise river road rock roof room
root rose round rule run safe said sail salt same sand save say school sea seat second see seed sell send set seven shade shape share sharp ship
shirt shoe shop short shoulder show side sign silver simple sing sister sit six size skin sky sleep slow small smell smile snow soft some song soon
sound south space speak spell spend spot spring square stand star start state stay step stone stop store storm story street strong study sugar
summer sun sure swim table tail take talk tall taste teach team tell ten test thank thick thin thing think third three tie time today together tone
took tool top touch town trade train travel tree trip true try turn two type under until upon use valley very view village visit voice wait walk
wall want war warm wash watch water wave way wear week weight well went west what wheel when white wide wife wild wind window winter wish wood word
work world write year yellow yes young
"""
WORDS: tuple[str, ...] = tuple(dict.fromkeys(_LIST.split()))

PIECES: tuple[str, ...] = (*"abcdefghijklmnopqrstuvwxyz", *"0123456789", ".", ",", ";", "!", "?", "-")
"""Short pieces for the last tokens of a length that whole words do not meet."""
