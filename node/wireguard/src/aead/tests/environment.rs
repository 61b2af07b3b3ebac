use std::{env, io::Write as _, process::Command};

use super::*;

/// The name of the test that a child runs.
const IN_CHILD: &str = "aead::tests::environment::the_path_of_the_environment_is_taken";

/// Runs the test below in a child in which a path is forced, and gives what it wrote.
fn child(name: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", IN_CHILD]).env(ENVIRONMENT, name);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_environment_forces_each_path() {
    for path in Path::available() {
        let text = child(path.name());
        assert!(text.contains(&format!("took {}.", path.name())), "{text}");
    }
    assert!(child("sse9").contains("the cipher has no path \"sse9\""));
    assert!(child("").contains("the cipher has no path \"\""));
}

/// Runs alone, and in the children of the test above.
#[test]
fn the_path_of_the_environment_is_taken() {
    let path = match (env::var(ENVIRONMENT), Path::from_environment()) {
        (Err(_), path) => {
            assert_eq!(path, Ok(Path::best()));
            Path::best()
        }
        (Ok(name), Ok(path)) => {
            assert_eq!(name, path.name());
            path
        }
        (Ok(name), Err(error)) => {
            assert_eq!(Path::named(&name), Err(error.clone()));
            writeln!(std::io::stdout(), "{error}").unwrap();
            return;
        }
    };
    let (key, text) = (Key::new(&[5; KEY_LEN]), bytes(1420, 1));
    let mut sealed = [vec![0; 1436], vec![0; 1436]];
    let [a, b] = &mut sealed;
    seal_batch(path, &mut [Seal::new(&key, 1, &text, 0, a).unwrap()]);
    seal_batch(Path::RING, &mut [Seal::new(&key, 1, &text, 0, b).unwrap()]);
    assert_eq!(sealed[0], sealed[1]);
    writeln!(std::io::stdout(), "took {}.", path.name()).unwrap();
}

#[test]
fn ring_is_always_there_and_a_missing_path_says_what_it_needs() {
    assert_eq!(Path::named("ring"), Ok(Path::RING));
    assert!(Path::available().any(|path| path == Path::RING));
    assert!(Path::available().any(|path| path == Path::best()));
    let error = PathError::Unavailable { name: "avx2", needs: "AVX2" };
    assert_eq!(
        error.to_string(),
        "this processor cannot run the cipher's path avx2, which needs AVX2"
    );
}
