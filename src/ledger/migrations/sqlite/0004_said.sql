-- Hash of what a restricted answer that is no refusal says; null of the others. A conversation that quotes the answer is
-- as restricted as the answer is.
ALTER TABLE answers ADD COLUMN said TEXT;
CREATE INDEX answers_by_said ON answers (user_name, said) WHERE said IS NOT NULL;
