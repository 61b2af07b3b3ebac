//! The configuration in words, as `weir config default` prints it.

use super::Config;
use crate::section::Section;

/// A configuration as a TOML file in which every key is explained.
#[must_use]
pub fn text(config: &Config) -> String {
    let mut text = String::from(
        "# The configuration of weir: every key with its default. A key that a file leaves out\n\
         # keeps its default. `weir config check FILE` reports every mistake in a file.\n",
    );
    for (name, section) in config.sections() {
        write_section(&mut text, name, section);
    }
    text
}

fn write_section(text: &mut String, name: &str, section: &dyn Section) {
    text.push('\n');
    write_comment(text, section.about());
    text.push_str(&format!("[{name}]\n"));
    for key in section.keys() {
        let (about, value) = section.describe(key);
        text.push('\n');
        write_comment(text, about);
        text.push_str(&format!("{key} = {value}\n"));
    }
}

fn write_comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        text.push_str(&format!("#{line}\n"));
    }
}
