use super::*;

#[test]
fn what_does_not_fit_is_counted() {
    let sentences: Vec<String> = (0..1_000).map(|index| format!("problem {index:0>92}")).collect();
    let lines = fitting(&sentences);
    assert_eq!(lines.len(), 41);
    assert_eq!(lines.last().unwrap(), "... and 960 more");
    let long = "x".repeat(MAX_TEXT_BYTES * 2);
    assert_eq!(fitting(std::slice::from_ref(&long)), std::slice::from_ref(&long));
    assert_eq!(fitting(&[""; 0]), [""; 0]);
}

#[test]
fn notes_survive_the_metadata_whatever_they_say() {
    let mut metadata = MetadataMap::new();
    annotate(&mut metadata, &["first", "zweite Ä: \"x\"\t%"]);
    assert_eq!(notes(&metadata), ["first", "zweite Ä: \"x\"\t%"]);
}
