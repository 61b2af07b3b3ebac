//! The program itself. That it has a test of its own has cargo build it for the other tests, with the
//! same features as everything else, and so each crate once.

use std::process::Command;

#[test]
fn a_consumers_package_has_the_consumers_commands_and_none_of_the_nodes() {
    let all = weir::cli::command();
    let consumer = weir::cli::consumer_command();
    consumer.clone().debug_assert();
    let names: Vec<_> = consumer.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    assert_eq!(names, ["wallet", "exits", "buy", "connect", "disconnect", "exec", "watch"]);
    let parsed = consumer.try_get_matches_from(["weir", "connect", "--status", "--json"]);
    assert!(parsed.is_ok_and(|it| it.subcommand_matches("connect").is_some()));
    assert!(all.get_subcommands().count() > names.len() + 10);
}

#[test]
fn every_command_has_help_with_what_it_does() {
    let command = weir::cli::command();
    let mut seen = 0;
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        assert!(subcommand.get_about().is_some(), "{name} says nothing");
        let said = Command::new(env!("CARGO_BIN_EXE_weir")).args([name, "--help"]).output();
        let said = said.expect("the program is built");
        assert!(said.status.success(), "{name} has no help");
        assert!(!said.stdout.is_empty(), "the help of {name} is empty");
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} commands");
}
