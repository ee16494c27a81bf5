"""Units of quantities and words of small vocabularies, from which values of these kinds are printed."""

from __future__ import annotations

from slime_vlm.pages.word_lists import listed

# Quantity: its units, and the largest number before each of them.
QUANTITIES: dict[str, dict[str, int]] = {
    "temperature": {"°C": 280, "°F": 480, "degrees": 240, "degrees Celsius": 99},
    "weight": {"kg": 240, "g": 900, "lb": 300, "oz": 40, "kilos": 90, "grams": 900},
    "length": {"mm": 900, "cm": 300, "m": 90, "in": 60, "ft": 90, "metres": 90, "inches": 40},
    "distance": {"km": 90, "m": 4000, "metres": 900, "miles": 60, "kilometres": 300},
    "volume": {"ml": 900, "l": 200, "litres": 300, "cl": 90, "gallons": 50, "cups": 6},
    "dose": {"mg": 900, "ml": 60, "µg": 500, "IU": 4000, "g": 5, "drops": 40, "tablets": 9},
    "power": {"W": 990, "kW": 40, "watts": 900, "mW": 500, "hp": 200},
    "voltage": {"V": 480, "mV": 900, "kV": 20, "volts": 240},
    "speed": {"km/h": 240, "mph": 150, "m/s": 40, "rpm": 9000},
    "pressure": {"bar": 12, "hPa": 1100, "mbar": 900, "psi": 120, "kPa": 400},
    "area": {"m²": 900, "ha": 90, "sq ft": 4000, "km²": 300, "square metres": 400, "acres": 60},
    "storage": {"GB": 512, "MB": 900, "TB": 16, "kB": 900},
    "concentration": {"mg/l": 300, "mmol/l": 20, "µg/ml": 90, "mg/dl": 250, "g/l": 60, "ppm": 900, "mM": 200, "%": 30},
}
VOCABULARIES: dict[str, list[str]] = {
    "country": listed(
        "Austria;Belgium;Brazil;Canada;Chile;China;Denmark;Egypt;Finland;France;Germany;Greece;Hungary;Iceland;India;"
        "Ireland;Italy;Japan;Kenya;Mexico;Morocco;the Netherlands;New Zealand;Norway;Peru;Poland;Portugal;Romania;"
        "South Africa;South Korea;Spain;Sweden;Switzerland;Thailand;Turkey;Vietnam;"
        "the United Kingdom;the United States",
        ";",
    ),
    "month": listed("January February March April May June July August September October November December"),
    "job": listed(
        "nurse;teacher;driver;baker;welder;lawyer;plumber;carpenter;cook;gardener;pilot;cashier;painter;dentist;"
        "librarian;translator;bookkeeper;chemist;mechanic;sales assistant;software developer;project manager;"
        "social worker;data analyst;warehouse clerk;research assistant;head of purchasing;tax adviser;civil servant",
        ";",
    ),
    "material": listed(
        "steel;aluminium;oak;pine;glass;cotton;wool;linen;leather;rubber;brass;copper;bronze;marble;granite;concrete;"
        "bamboo;nylon;polyester;silicone;nitrile;stainless steel;cast iron;recycled plastic;solid wood;walnut",
        ";",
    ),
    "food": listed(
        "salt;pepper;honey;garlic;basil;parsley;onions;carrots;mushrooms;tomatoes;almonds;hazelnuts;peanuts;eggs;milk;"
        "butter;cheese;lemon juice;olive oil;rice;lentils;spinach;pumpkin;cinnamon;ginger;cocoa;oats;strawberries;"
        "apples;shellfish;mustard;celery;soy;maize;yeast",
        ";",
    ),
    "subject": listed(
        "mathematics;physics;chemistry;biology;history;geography;music;art;Latin;economics;computer science;philosophy;"
        "law;medicine;statistics;mechanical engineering;linguistics;psychology;nursing;architecture;English literature",
        ";",
    ),
    "room": listed(
        "Room 4;Room 12;Room 214;Room B 1.07;Room E23;Hall A;Hall 3;the main hall;the library;the canteen;the chapel;"
        "the old gym;the blue salon;Lecture Theatre 2;Studio 5;the town hall;the reading room;Seminar Room 9;the annex;"
        "the staff room;Building 7;the conference centre;the school yard;Pavilion C",
        ";",
    ),
}
