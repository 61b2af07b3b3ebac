//! Where an address is: databases that the operator supplies. weir ships none and fetches none.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use maxminddb::Reader;
use serde::Deserialize;
use weir_config::IpType;

use crate::listing::Country;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// How MaxMind's format is recognised by its name.
const MMDB: &str = "mmdb";

/// What is known of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its country.
    pub country: Option<Country>,
    /// The autonomous system that announces it.
    pub asn: Option<u32>,
    /// The kind of line.
    pub ip_type: Option<IpType>,
}

impl Place {
    /// What this one says, and where it says nothing, what the other says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            country: self.country.or(other.country),
            asn: self.asn.or(other.asn),
            ip_type: self.ip_type.or(other.ip_type),
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be read.
    #[error(
        "cannot read {path}: {source}. Fix: put the database there, readable by weir, or remove it \
         from market.place_files"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is too large.
    #[error("{0} is larger than 1 GiB")]
    Size(PathBuf),
    /// It is not a database in MaxMind's format.
    #[error("{path} is not a database in MaxMind's format: {problem}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A line of it is wrong.
    #[error(
        "{path}:{line}: {problem}. Fix: write \"network,country,asn,type\", for example \
         \"192.0.2.0/24,DE,64500,residential\"; asn and type may be empty"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// Databases of addresses, in the order in which they count.
#[derive(Debug, Default)]
pub struct Places(Vec<Database>);

enum Database {
    Mmdb(Box<Reader<Vec<u8>>>),
    Networks(Vec<(IpNet, Place)>),
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mmdb(_) => "Mmdb",
            Self::Networks(_) => "Networks",
        })
    }
}

impl Places {
    /// Reads these files.
    ///
    /// # Errors
    ///
    /// Names the first that cannot be used, and what is wrong with it.
    pub fn load<P: AsRef<Path>>(files: &[P]) -> Result<Self, PlaceError> {
        files.iter().map(|file| Database::load(file.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// What the databases say of an address. What an earlier one says counts.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Place {
        let said = self.0.iter().map(|database| database.find(address));
        said.fold(Place::default(), Place::or)
    }

    /// Whether there is no database.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Database {
    fn load(path: &Path) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Read { path: path.into(), source };
        if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
            return Err(PlaceError::Size(path.into()));
        }
        let bytes = fs::read(path).map_err(failed)?;
        if path.extension().is_some_and(|extension| extension == MMDB) {
            let reader = Reader::from_source(bytes).map_err(|error| PlaceError::Form {
                path: path.into(),
                problem: error.to_string(),
            })?;
            return Ok(Self::Mmdb(Box::new(reader)));
        }
        let text = String::from_utf8_lossy(&bytes);
        parse(&text).map(Self::Networks).map_err(|(line, problem)| PlaceError::Line {
            path: path.into(),
            line,
            problem,
        })
    }

    fn find(&self, address: IpAddr) -> Place {
        match self {
            Self::Mmdb(reader) => {
                let found = reader.lookup(address).and_then(|found| found.decode::<Record>());
                found.ok().flatten().map(Record::place).unwrap_or_default()
            }
            Self::Networks(networks) => {
                let has = networks.iter().filter(|(network, _)| network.contains(&address));
                let closest = has.max_by_key(|(network, _)| network.prefix_len());
                closest.map(|(_, place)| *place).unwrap_or_default()
            }
        }
    }
}

/// Reads lines of `network,country,asn,type`. `#` begins a comment. The error has the line, from 1,
/// and the problem.
///
/// # Errors
///
/// Names the first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<(IpNet, Place)>, (usize, String)> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        // The names of the columns.
        if entry.is_empty() || (number == 0 && entry.starts_with("network")) {
            continue;
        }
        all.push(parse_line(entry).map_err(|problem| (number + 1, problem))?);
    }
    Ok(all)
}

fn parse_line(entry: &str) -> Result<(IpNet, Place), String> {
    let mut fields = entry.split(',').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    let (network, country, asn, ip_type) = (next(), next(), next(), next());
    if fields.next().is_some() {
        return Err("there are more than four fields".into());
    }
    let network = match network.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => network.parse().map_err(|_| format!("{network:?} is not a network"))?,
    };
    let said = |text: &str| !text.is_empty();
    let country = Some(country).filter(|it| said(it)).map(str::parse::<Country>).transpose();
    let asn = Some(asn).filter(|it| said(it)).map(|text| number(text).ok_or(text)).transpose();
    let ip_type =
        Some(ip_type).filter(|it| said(it)).map(|word| kind(word).ok_or(word)).transpose();
    Ok((
        network,
        Place {
            country: country.map_err(|error| error.to_string())?,
            asn: asn.map_err(|text| format!("{text:?} is not the number of an AS"))?,
            ip_type: ip_type
                .map_err(|word| format!("{word:?} is not one of {}", IpType::WORDS.join(", ")))?,
        },
    ))
}

/// Reads `3320` and `AS3320`.
fn number(text: &str) -> Option<u32> {
    text.strip_prefix("AS").or(text.strip_prefix("as")).unwrap_or(text).parse().ok()
}

/// Reads the kinds of lines of various databases.
fn kind(word: &str) -> Option<IpType> {
    IpType::from_word(word).or(match word {
        "isp" => Some(IpType::Residential),
        "education" | "government" => Some(IpType::Business),
        "mobile" => Some(IpType::Cellular),
        _ => None,
    })
}

/// What weir reads of the records of known databases in MaxMind's format.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    country: Option<CountryField>,
    country_code: Option<String>,
    autonomous_system_number: Option<u32>,
    asn: Option<AsnField>,
    r#type: Option<String>,
    traits: Option<Traits>,
}

/// Either `{"iso_code": "DE"}` or `"DE"`, or the country's name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum CountryField {
    Coded { iso_code: Option<String> },
    Plain(String),
}

/// Either 3320 or "AS3320".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum AsnField {
    Number(u32),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Traits {
    user_type: Option<String>,
    autonomous_system_number: Option<u32>,
}

impl Record {
    fn place(self) -> Place {
        let country = match self.country {
            Some(CountryField::Coded { iso_code }) => iso_code,
            Some(CountryField::Plain(text)) => Some(text),
            None => None,
        };
        let country = self.country_code.or(country);
        let asn = match self.asn {
            Some(AsnField::Number(number)) => Some(number),
            Some(AsnField::Text(text)) => number(&text),
            None => None,
        };
        let traits = self.traits.unwrap_or_default();
        let asn = asn.or(self.autonomous_system_number).or(traits.autonomous_system_number);
        let word = self.r#type.or(traits.user_type);
        Place {
            country: country.and_then(|code| code.parse().ok()),
            asn,
            ip_type: word.and_then(|word| kind(&word)),
        }
    }
}

#[cfg(test)]
mod tests;
