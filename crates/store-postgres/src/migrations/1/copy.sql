-- A copy of another store, and the store whose time is reset.

-- A copy is whole. What was being put is there by then.
create function {s}.rg_end_copy(p_known bytea, out o_status text) language plpgsql as $$
begin
    perform {s}.rg_begin(p_known, false);
    perform pg_advisory_xact_lock(hashtext('{s}'), 5);
    update {s}.head set copying = null;
    o_status := 'whole';
end
$$;

-- The latest time that is remembered. With entries, none later than now is from then on, and they take the place of those that
-- are there.
create function {s}.rg_lower(
    p_known bytea, p_keys bytea[], p_effects bytea[], out o_status text, out o_latest bigint
) language plpgsql as $$
declare
    moment bigint;
begin
    perform {s}.rg_begin(p_known, p_keys is not null);
    select greatest(last, (select adopted from {s}.head)) into strict o_latest from {s}.stamp;
    o_status := 'lowered';
    if p_keys is null then
        return;
    end if;
    moment := {s}.rg_now();
    -- What begins is later than the not-befores of now.
    update {s}.stamp set last = moment + 1;
    update {s}.head set adopted = least(adopted, moment);
    delete from {s}.node;
    delete from {s}.change;
    update {s}.revocation r set effect = e.effect
        from unnest(p_keys, p_effects) as e (key, effect) where r.key = e.key and r.effect <> e.effect;
    update {s}.revocation_log set written = least(written, moment);
end
$$;
