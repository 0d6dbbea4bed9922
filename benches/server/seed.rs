//! What is written: synthetic Observations of about 1.1 KB, each with a sequence number and the
//! moment it was made, so that whoever gets one can tell what is missing and how long it took.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mongodb::bson::{Bson, DateTime, Document, doc};

/// What stands right before `SSSSSSSS.TTTTTTTTTTTTTTTT`: sequence number and microseconds since
/// 1970, in the value of the Observation's identifier.
pub(crate) const MARK: &[u8] = br#"{"system":"urn:fhirtail:bench","value":""#;

/// Whose the Observations are, in turn, where nobody says otherwise: how many patients.
pub(crate) const PATIENTS: u32 = 5_000;

/// Digits of a sequence number, and of a stamp.
const DIGITS: (usize, usize) = (8, 16);

/// One Observation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    /// Its place among those of a measurement, from 0.
    pub(crate) seq: u32,
    /// When it was made, in microseconds since 1970.
    pub(crate) stamp: u64,
    /// It is one of so many patients', in turn.
    pub(crate) patients: u32,
}

impl Observation {
    /// Made now.
    pub(crate) fn now(seq: u32) -> Self {
        Self::made(seq, now())
    }

    /// Made at that moment.
    pub(crate) fn made(seq: u32, stamp: u64) -> Self {
        Self { seq, stamp, patients: PATIENTS }
    }

    /// As it lies in MongoDB: members in the order of the resource, but for the id.
    pub(crate) fn document(self) -> Document {
        let Self { seq, stamp, patients } = self;
        let at = i64::try_from(stamp / 1000).unwrap_or(i64::MAX);
        let patient = format!("Patient/p-{:06}", seq % patients);
        let minute = format!("2026-03-{:02}T{:02}:{:02}:00Z", seq % 28 + 1, seq % 24, seq % 60);
        doc! {
            "_id": format!("o-{seq:08}"),
            "resourceType": "Observation",
            "meta": {"versionId": "1", "lastUpdated": DateTime::from_millis(at)},
            "identifier": [{
                "system": "urn:fhirtail:bench", "value": format!("{seq:08}.{stamp:016}"),
            }],
            "status": "final",
            "category": [coded(
                "http://terminology.hl7.org/CodeSystem/observation-category",
                "vital-signs",
                "Vital Signs",
            )],
            "code": coded("http://loinc.org", "29463-7", "Body weight"),
            "subject": {"reference": patient, "display": "Synthetic patient"},
            "encounter": {"reference": format!("Encounter/e-{:07}", seq % 70_000)},
            "effectiveDateTime": &minute,
            "issued": minute,
            "performer": [{"reference": "Practitioner/synthetic-1", "display": "Dr. Synthetic"}],
            "valueQuantity": {
                "value": 50.0 + f64::from(seq % 500) / 10.0,
                "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg",
            },
            "referenceRange": [{
                "low": kilograms(45), "high": kilograms(110), "text": "of an adult",
            }],
            "note": [{"text": "Measured in light clothes, without shoes, before breakfast."}],
        }
    }

    /// As a server sends it.
    pub(crate) fn json(self) -> String {
        let mut document = self.document();
        let id = document.remove("_id").unwrap_or(Bson::Null);
        let mut json = String::from("{\"resourceType\":\"Observation\",\"id\":");
        document.remove("resourceType");
        write(&id, &mut json);
        for (name, value) in &document {
            json.push_str(&format!(",\"{name}\":"));
            write(value, &mut json);
        }
        json.push('}');
        json
    }
}

fn coded(system: &str, code: &str, display: &str) -> Document {
    let coding = doc! {"system": system, "code": code, "display": display};
    doc! {"coding": [coding], "text": display}
}

fn kilograms(value: i32) -> Document {
    doc! {"value": value, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
}

/// Compact JSON. No text of ours needs an escape.
fn write(value: &Bson, out: &mut String) {
    match value {
        Bson::String(text) => out.push_str(&format!("\"{text}\"")),
        Bson::DateTime(at) => {
            out.push_str(&format!("\"{}\"", at.try_to_rfc3339_string().unwrap_or_default()));
        }
        Bson::Array(items) => {
            let mut between = '[';
            for item in items {
                out.push(std::mem::replace(&mut between, ','));
                write(item, out);
            }
            out.push(']');
        }
        Bson::Document(members) => {
            let mut between = '{';
            for (name, value) in members {
                out.push(std::mem::replace(&mut between, ','));
                out.push_str(&format!("\"{name}\":"));
                write(value, out);
            }
            out.push('}');
        }
        number => out.push_str(&number.to_string()),
    }
}

/// Reads sequence number and stamp from what follows [`MARK`].
pub(crate) fn mark(after: &[u8]) -> Option<(u32, u64)> {
    let (seq, stamp) = DIGITS;
    let number = |from: usize, digits: usize| {
        std::str::from_utf8(after.get(from..from + digits)?).ok()?.parse::<u64>().ok()
    };
    Some((u32::try_from(number(0, seq)?).ok()?, number(seq + 1, stamp)?))
}

/// When events are due that one thread sends.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: u64,
    rate: Option<f64>,
}

impl Pace {
    /// `rate` in events a second from now on; `None`: as fast as it goes.
    pub(crate) fn start(rate: Option<f64>) -> Self {
        Self { begun: now(), rate }
    }

    /// Waits until the n-th event is due, and gives its stamp: the moment when it was due, which
    /// is past where the sender can't keep up.
    pub(crate) fn wait(&self, n: u32) -> u64 {
        let Some(rate) = self.rate else { return now() };
        let due = self.begun + (f64::from(n) * 1e6 / rate) as u64;
        std::thread::sleep(Duration::from_micros(due.saturating_sub(now())));
        due
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
