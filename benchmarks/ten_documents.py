"""Write ten documents as a new user would have them, with questions, as records for `slime eval ablation --records`.

    apt-get install chromium
    python benchmarks/ten_documents.py --out runs/ten
    slime eval ablation --model pages --records runs/ten/records.jsonl --settings "all,ocr" --out runs/ten/answers

The questions were written before any answer was seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from slime_vlm.errors import ConfigError
from slime_vlm.pages.browser.printing import browser_command

STYLE = (
    "<!doctype html><meta charset=utf-8><style>body{font:15px/1.5 FONT;margin:48px;color:#111}"
    "table{border-collapse:collapse;width:100%}td,th{padding:6px 10px;text-align:left;border-bottom:1px solid #ccc}"
    ".r{text-align:right}h1{font-size:26px}</style><body>"
)

# Of every document: its font, its body, and questions with their answers.
DOCUMENTS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "invoice": (
        "Arial, sans-serif",
        (
            '<h1>Tax Invoice</h1><div style="display:flex;justify-content:space-between"><div>'
            "<b>Harbour Print & Copy Ltd</b><br>14 Quay Lane, Bristol BS1 5TR<br>VAT no: GB 482 1193 07"
            "</div><div>Invoice number: HP-20417<br>Invoice date: 14 March 2025<br>Due date: 13 April 2025"
            "</div></div><p>Bill to: <b>Marlow Dental Practice</b></p><table><tr><th>Description</th>"
            "<th class=r>Qty</th><th class=r>Unit price</th><th class=r>Amount</th></tr><tr>"
            "<td>Appointment cards</td><td class=r>500</td><td class=r>0.12</td><td class=r>60.00</td></tr>"
            "<tr><td>Letterheads A4</td><td class=r>1000</td><td class=r>0.09</td><td class=r>90.00</td>"
            "</tr><tr><td>Window sticker</td><td class=r>2</td><td class=r>18.50</td><td class=r>37.00</td>"
            "</tr></table><p class=r>Subtotal: £187.00<br>VAT 20%: £37.40<br><b>Total due: £224.40</b></p>"
        ),
        [
            ("What is the invoice number?", "HP-20417"),
            ("How much do I have to pay in total?", "£224.40"),
            ("When is payment due?", "13 April 2025"),
            ("How many letterheads were ordered?", "1000"),
        ],
    ),
    "receipt": (
        "'Courier New', monospace",
        (
            '<div style="width:380px;margin:auto;text-align:center"><b>GREEN GROCER</b><br>22 Market Street'
            "<br>Tel 0161 555 0143<hr><table><tr><td>Bananas 1.2 kg</td><td class=r>1.68</td></tr><tr>"
            "<td>Oat milk</td><td class=r>2.10</td></tr><tr><td>Sourdough loaf</td><td class=r>3.40</td>"
            "</tr><tr><td><b>TOTAL</b></td><td class=r><b>7.18</b></td></tr><tr><td>Cash</td>"
            "<td class=r>10.00</td></tr><tr><td>Change</td><td class=r>2.82</td></tr></table>"
            "<p>03/06/2024 17:42 &nbsp; Till 4</p></div>"
        ),
        [
            ("total", "7.18"),
            ("How much change was given?", "2.82"),
            ("What is the price of Oat milk?", "2.10"),
            ("phone number", "0161 555 0143"),
        ],
    ),
    "lab": (
        "Arial, sans-serif",
        (
            "<h1>Laboratory Report</h1>"
            "<p>Patient: Ruth Okafor &nbsp;&nbsp; Date of birth: 02.11.1968 &nbsp;&nbsp; Sample: serum</p>"
            "<table><tr><th>Test</th><th>Result</th><th>Unit</th><th>Reference range</th></tr><tr>"
            "<td>Haemoglobin</td><td>13.1</td><td>g/dl</td><td>12.0 - 15.5</td></tr><tr><td>Ferritin</td>"
            "<td>9</td><td>ng/ml</td><td>15 - 150</td></tr><tr><td>Creatinine</td><td>0.84</td><td>mg/dl"
            "</td><td>0.5 - 1.1</td></tr><tr><td>TSH</td><td>2.35</td><td>mU/l</td><td>0.4 - 4.0</td></tr>"
            "</table><p>Requested by: Dr. Elena Brandt</p>"
        ),
        [
            ("What is the result for Ferritin?", "9"),
            ("Who requested the test?", "Dr. Elena Brandt"),
            ("What is the unit of TSH?", "mU/l"),
            ("When was the patient born?", "02.11.1968"),
        ],
    ),
    "boarding": (
        "Arial, sans-serif",
        (
            '<div style="border:2px solid #235;padding:24px;width:720px"><h1>Boarding pass</h1><table><tr>'
            "<td>Passenger<br><b>NAKAMURA / KEI</b></td><td>Flight<br><b>NX 482</b></td><td>Date<br>"
            "<b>09 JUL</b></td></tr><tr><td>From<br><b>Lisbon LIS</b></td><td>To<br><b>Oslo OSL</b></td>"
            "<td>Seat<br><b>17C</b></td></tr><tr><td>Gate<br><b>B24</b></td><td>Boarding<br><b>11:35</b>"
            "</td><td>Class<br><b>Economy</b></td></tr></table></div>"
        ),
        [
            ("What is the seat?", "17C"),
            ("Which gate?", "B24"),
            ("When is boarding?", "11:35"),
            ("flight", "NX 482"),
        ],
    ),
    "letter": (
        "'Times New Roman', serif",
        (
            "<p>Northfield Water Board<br>PO Box 118<br>Northfield</p><p>Mr. Alan Pryce<br>7 Orchard Close"
            "<br>Northfield NF3 8QD</p><p>21 January 2026</p><p><b>Account reference: 5530-8812</b></p>"
            "<p>Dear Mr. Pryce,</p>"
            "<p>we will replace the water meter at your address on Tuesday, 17 February 2026. The work takes "
            "about two hours. The water will be switched off between 9:00 and 11:30. If this date does not "
            "suit you, please call us on 0800 330 917 within ten days."
            "</p><p>Yours sincerely,<br>Joanne Hale<br>Customer Services</p>"
        ),
        [
            ("Who signed the letter?", "Joanne Hale"),
            ("What is the account reference?", "5530-8812"),
            ("Who is it addressed to?", "Mr. Alan Pryce"),
            ("Which number should I call?", "0800 330 917"),
        ],
    ),
    "timetable": (
        "Arial, sans-serif",
        (
            "<h1>Bus 41: Weekdays</h1><table><tr><th>Stop</th><th>1st</th><th>2nd</th><th>3rd</th></tr><tr>"
            "<td>Station</td><td>6:10</td><td>7:05</td><td>8:20</td></tr><tr><td>Town Hall</td><td>6:18</td>"
            "<td>7:14</td><td>8:31</td></tr><tr><td>Hospital</td><td>6:27</td><td>7:25</td><td>8:44</td>"
            "</tr><tr><td>Airport</td><td>6:49</td><td>7:52</td><td>9:12</td></tr></table>"
        ),
        [
            ("What is the title?", "Bus 41: Weekdays"),
            ("When does the 2nd bus stop at Hospital?", "7:25"),
            ("Airport 1st", "6:49"),
        ],
    ),
    "datasheet": (
        "Arial, sans-serif",
        (
            "<h1>DX-300 Air Pump</h1><p>Technical data</p><table><tr><td>Rated voltage</td><td>230 V / 50 Hz"
            "</td></tr><tr><td>Power consumption</td><td>38 W</td></tr><tr><td>Air flow</td><td>4.2 m3/h"
            "</td></tr><tr><td>Noise level</td><td>31 dB(A)</td></tr><tr><td>Weight</td><td>1.9 kg</td></tr>"
            "<tr><td>Order number</td><td>733 019</td></tr></table>"
        ),
        [
            ("How heavy is it?", "1.9 kg"),
            ("What is the noise level?", "31 dB(A)"),
            ("order number", "733 019"),
            ("How much power does it consume?", "38 W"),
        ],
    ),
    "menu": (
        "Georgia, serif",
        (
            '<h1 style="text-align:center">Osteria del Ponte</h1><h3>Starters</h3>'
            "<p>Grilled aubergine ........ 8.50<br>Fish soup ........ 11.00</p><h3>Main courses</h3>"
            "<p>Ravioli with sage ........ 15.00<br>Rabbit stew ........ 19.50<br>Sea bass ........ 23.00"
            "</p><h3>Desserts</h3><p>Lemon tart ........ 7.00</p><p>Open Tuesday to Sunday, 18:00 to 23:00"
            "</p>"
        ),
        [
            ("How much is the Rabbit stew?", "19.50"),
            ("price of Lemon tart", "7.00"),
            ("What is the name of the restaurant?", "Osteria del Ponte"),
        ],
    ),
    "form": (
        "Arial, sans-serif",
        (
            "<h1>Application for a Parking Permit</h1><table><tr><td>Surname</td><td>Villareal</td>"
            "<td>First name</td><td>Teodora</td></tr><tr><td>Street</td><td>88 Chestnut Avenue</td>"
            "<td>Postcode</td><td>LS6 2HN</td></tr><tr><td>Registration number</td><td>YK19 ZPB</td>"
            "<td>Colour</td><td>dark green</td></tr><tr><td>Valid from</td><td>01/09/2025</td>"
            "<td>Valid until</td><td>31/08/2026</td></tr></table>"
        ),
        [
            ("What is the registration number?", "YK19 ZPB"),
            ("Until when is it valid?", "31/08/2026"),
            ("surname", "Villareal"),
            ("What is this form called?", "Application for a Parking Permit"),
        ],
    ),
    "settings": (
        "Arial, sans-serif",
        (
            '<div style="background:#f4f6fa;padding:28px;width:760px"><h1>Network settings</h1><table><tr>'
            "<td>Host name</td><td class=r>printer-2f</td></tr><tr><td>IP address</td><td class=r>10.4.18.77"
            "</td></tr><tr><td>Subnet mask</td><td class=r>255.255.254.0</td></tr><tr><td>DHCP</td>"
            "<td class=r>Enabled</td></tr><tr><td>Firmware</td><td class=r>4.11.2</td></tr></table></div>"
        ),
        [
            ("What is the IP address?", "10.4.18.77"),
            ("Is DHCP enabled?", "Enabled"),
            ("firmware", "4.11.2"),
            ("What is the serial number?", "not on this page"),
        ],
    ),
}


def draw(page: Path, picture: Path) -> None:
    """Draw a page as the browser shows it.

    Raises:
        SystemExit: No Chromium is installed, or it draws nothing.
    """
    # What an earlier run drew must not be taken for this one's.
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        try:
            command = browser_command(Path(profile))
        except ConfigError as error:
            raise SystemExit(str(error)) from None
        command += ["--hide-scrollbars", "--force-device-scale-factor=1.5", "--window-size=900,1000"]
        command += [f"--screenshot={picture}", str(page)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not picture.is_file():
        raise SystemExit(f"{command[0]} drew no picture of {page}: {done.stderr.strip()[-200:]}")


def main() -> None:
    """Write the documents, a picture of each, and the records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    records = []
    for name, (font, body, questions) in DOCUMENTS.items():
        page, picture = (options.out / f"{name}.{kind}" for kind in ("html", "png"))
        page.write_text(STYLE.replace("FONT", font) + body, encoding="utf-8")
        draw(page, picture)
        turns = []
        for number, (question, answer) in enumerate(questions):
            turns.append({"from": "human", "value": ("" if number else "<image>\n") + question})
            turns.append({"from": "gpt", "value": answer})
        records.append({"id": name, "image": picture.name, "conversations": turns})
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (options.out / "records.jsonl").write_text(lines, encoding="utf-8")
    count = sum(len(questions) for _, _, questions in DOCUMENTS.values())
    print(f"{options.out}/records.jsonl: {len(records)} documents, {count} questions")


if __name__ == "__main__":
    main()
